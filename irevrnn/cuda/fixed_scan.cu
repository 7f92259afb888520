// The fixed-point kernels, one thread a lane, and their launches.
#include "fixed_scan.cuh"

#include "fixed_thread.h"
#include "grid.cuh"

namespace irevrnn {
namespace {

// What a thread does in each kernel.
template <int R, class F, class T>
struct ForwardWork {
  LaneForward<T> s;
  F f;
  IREVRNN_INLINE void operator()(const Thread& thread) const {
    if (thread.number() < s.lanes()) forward_lane<R>(s, f, thread.number(), 0, s.steps);
  }
};

template <int R, class F, class T>
struct InverseWork {
  FixedInverse<T> s;
  F f;
  IREVRNN_INLINE void operator()(const Thread& thread) const {
    if (thread.number() < s.lanes()) inverse_lane<R>(s, f, thread.number(), 0, s.steps);
  }
};

struct GatherWork {
  LaneWords s;
  IREVRNN_INLINE void operator()(const Thread& thread) const {
    if (thread.number() < s.lanes) gather_lane(s, thread.number());
  }
};

}  // namespace

template <class T>
cudaError_t launch_lanes(const LaneForward<T>& s, cudaStream_t stream) {
  return with_lane_kernel(s, [&](auto couplings, auto f) {
    return run_grid(ForwardWork<couplings.value, decltype(f), T>{s, f}, Grid::of(s.lanes()), stream);
  });
}

template <class T>
cudaError_t launch_lanes(const FixedInverse<T>& s, cudaStream_t stream) {
  return with_lane_kernel(s, [&](auto couplings, auto f) {
    return run_grid(InverseWork<couplings.value, decltype(f), T>{s, f}, Grid::of(s.lanes()), stream);
  });
}

cudaError_t launch_gather(const LaneWords& s, cudaStream_t stream) {
  return run_grid(GatherWork{s}, Grid::of(s.lanes), stream);
}

template cudaError_t launch_lanes(const LaneForward<float>&, cudaStream_t);
template cudaError_t launch_lanes(const LaneForward<double>&, cudaStream_t);
template cudaError_t launch_lanes(const FixedInverse<float>&, cudaStream_t);
template cudaError_t launch_lanes(const FixedInverse<double>&, cudaStream_t);

}  // namespace irevrnn
