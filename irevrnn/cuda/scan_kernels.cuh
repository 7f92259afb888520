// The launches of scan_launch.h. Each .cu file instantiates them for one type of sequence, so that they
// compile side by side.
#pragma once

#include "scan_grid.h"
#include "scan_launch.h"

namespace irevrnn {

struct LaunchOn : AllInstances {
  cudaStream_t stream;
  explicit LaunchOn(cudaStream_t stream) : stream(stream) {}
  template <class Work>
  cudaError_t operator()(const Work& work, const Grid& grid) const { return run_grid(work, grid, stream); }
};

template <class Problem>
cudaError_t scan_on_device(const Problem& s, cudaStream_t stream) {
  return scan_on_grid(s, Grid::of(s.lanes()), LaunchOn(stream));
}

// In the largest block that has its scratch in the shared memory that any device has.
template <class T>
cudaError_t scan_on_device(const Backward<T>& s, T* workspace, cudaStream_t stream) {
  constexpr int64_t most_shared = 48 << 10;
  constexpr int fewest_threads = 32;
  const int64_t bytes = scratch_bytes<AllInstances>(s);
  int threads = most_threads;
  while (threads > fewest_threads && threads * bytes > most_shared) threads /= 2;
  if (threads * bytes > most_shared) return cudaErrorMemoryAllocation;
  return scan_on_grid(s, Grid::of(s.lanes(), threads, bytes), workspace, LaunchOn(stream));
}

}  // namespace irevrnn
