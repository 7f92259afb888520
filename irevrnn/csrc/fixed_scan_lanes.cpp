// The fixed-point scan one lane at a time: any dtype, any shape, and the same functions as a CUDA thread runs.
#include "fixed_thread.h"
#include "scan_driver.h"

namespace irevrnn {

template <class T>
void fixed_scan_lanes(const LaneForward<T>& s) {
  std::vector<int64_t> bad_steps(max_chunks, -1);
  with_lane_kernel(s, [&](auto couplings, auto f) {
    for_each_chunk(s.lanes(), 1, [&](int64_t chunk, int64_t first, int64_t past_last) {
      LaneForward<T> part = s;
      part.bad_step = &bad_steps[chunk];
      for (int64_t begin = 0; begin < s.steps && bad_steps[chunk] < 0; begin += s.block()) {
        const int64_t end = std::min(s.steps, begin + s.block());
        for (int64_t lane = first; lane < past_last; ++lane) {
          forward_lane<couplings.value>(part, f, lane, begin, end);
        }
      }
    });
  });
  for (int64_t step : bad_steps) {
    if (step >= 0) note_step(s.bad_step, step);
  }
}

template <class T>
void fixed_scan_lanes(const FixedInverse<T>& s) {
  with_lane_kernel(s, [&](auto couplings, auto f) {
    for_each_chunk(s.lanes(), 1, [&](int64_t, int64_t first, int64_t past_last) {
      for (int64_t begin = (s.steps - 1) / s.block() * s.block(); begin >= 0; begin -= s.block()) {
        const int64_t end = std::min(s.steps, begin + s.block());
        for (int64_t lane = first; lane < past_last; ++lane) {
          inverse_lane<couplings.value>(s, f, lane, begin, end);
        }
      }
    });
  });
}

void gather_lanes(const LaneWords& s) {
  at::parallel_for(0, s.lanes, 64, [&](int64_t first, int64_t past_last) {
    for (int64_t lane = first; lane < past_last; ++lane) gather_lane(s, lane);
  });
}

template void fixed_scan_lanes(const LaneForward<float>&);
template void fixed_scan_lanes(const LaneForward<double>&);
template void fixed_scan_lanes(const FixedInverse<float>&);
template void fixed_scan_lanes(const FixedInverse<double>&);

}  // namespace irevrnn
