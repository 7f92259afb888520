// The fixed-point kernels, and numbers that go to the device as arguments of kernels.
#include "scan_kernels.cuh"

namespace irevrnn {

struct WriteWork {
  static constexpr int most = 448;  // arguments may take 4 KiB
  int64_t numbers[most];
  int count;
  int64_t* to;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    if (thread.number() < count) to[thread.number()] = numbers[thread.number()];
  }
};

cudaError_t write_numbers(const int64_t* from, int64_t count, int64_t* to, cudaStream_t stream) {
  for (int64_t first = 0; first < count; first += WriteWork::most) {
    WriteWork work{};
    work.count = static_cast<int>(smaller<int64_t>(WriteWork::most, count - first));
    memcpy(work.numbers, from + first, work.count * sizeof(int64_t));
    work.to = to + first;
    const cudaError_t status = run_grid(work, Grid::of(work.count), stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

cudaError_t scan_on_device(const LaneWords& s, cudaStream_t stream) {
  return run_grid(GatherWork{s}, Grid::of(s.lanes), stream);
}

template cudaError_t scan_on_device(const LaneForward<float>&, cudaStream_t);
template cudaError_t scan_on_device(const LaneForward<double>&, cudaStream_t);
template cudaError_t scan_on_device(const FixedInverse<float>&, cudaStream_t);
template cudaError_t scan_on_device(const FixedInverse<double>&, cudaStream_t);

}  // namespace irevrnn
