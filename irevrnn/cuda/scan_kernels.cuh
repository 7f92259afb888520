// The launches of scan_launch.h. Each .cu file instantiates them for one type of sequence, so that they
// compile side by side.
#pragma once

#include "scan_grid.h"
#include "scan_launch.h"

namespace irevrnn {

// The largest block that has its scratch in shared memory; without any, where that does not suffice.
inline Grid choose_block(int64_t lanes, int64_t bytes) {
  for (int threads = most_threads; threads >= fewest_threads; threads /= 2) {
    if (threads * bytes <= most_shared) return Grid::of(lanes, threads, bytes);
  }
  return Grid::of(lanes);
}

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

template <class T>
cudaError_t scan_on_device(const Backward<T>& s, T* workspace, cudaStream_t stream) {
  return scan_on_grid(s, plan_of<AllInstances>(s, choose_block), workspace, LaunchOn(stream));
}

template <class T>
int64_t workspace_numbers(const Backward<T>& s) {
  const BackwardPlan plan = plan_of<AllInstances>(s, choose_block);
  return plan.totals + plan.scratch;
}

}  // namespace irevrnn
