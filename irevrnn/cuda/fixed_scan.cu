// The launches of the fixed-point kernels.
#include "fixed_scan.cuh"

#include "fixed_grid.h"

namespace irevrnn {
namespace {

// All steps in one launch.
struct Launch {
  cudaStream_t stream;
  template <class Work>
  cudaError_t operator()(const Work& work, const Grid& grid) const { return run_grid(work, grid, stream); }
};

}  // namespace

template <class T>
cudaError_t launch(const LaneForward<T>& s, cudaStream_t stream) {
  return fixed_scan_on_grid(s, Grid::of(s.lanes()), Launch{stream});
}

template <class T>
cudaError_t launch(const FixedInverse<T>& s, cudaStream_t stream) {
  return fixed_scan_on_grid(s, Grid::of(s.lanes()), Launch{stream});
}

cudaError_t launch(const LaneWords& s, cudaStream_t stream) {
  return run_grid(GatherWork{s}, Grid::of(s.lanes), stream);
}

template cudaError_t launch(const LaneForward<float>&, cudaStream_t);
template cudaError_t launch(const LaneForward<double>&, cudaStream_t);
template cudaError_t launch(const FixedInverse<float>&, cudaStream_t);
template cudaError_t launch(const FixedInverse<double>&, cudaStream_t);

}  // namespace irevrnn
