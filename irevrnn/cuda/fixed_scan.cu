// The launches of fixed_launch.h.
#include "fixed_launch.h"

#include "fixed_grid.h"
#include "scan_kernels.cuh"

namespace irevrnn {

template <class T>
cudaError_t fixed_scan_on_device(const LaneForward<T>& s, cudaStream_t stream) {
  return fixed_scan_on_grid(s, Grid::of(s.lanes()), LaunchOn(stream));
}

template <class T>
cudaError_t fixed_scan_on_device(const FixedInverse<T>& s, cudaStream_t stream) {
  return fixed_scan_on_grid(s, Grid::of(s.lanes()), LaunchOn(stream));
}

cudaError_t fixed_scan_on_device(const LaneWords& s, cudaStream_t stream) {
  return run_grid(GatherWork{s}, Grid::of(s.lanes), stream);
}

template cudaError_t fixed_scan_on_device(const LaneForward<float>&, cudaStream_t);
template cudaError_t fixed_scan_on_device(const LaneForward<double>&, cudaStream_t);
template cudaError_t fixed_scan_on_device(const FixedInverse<float>&, cudaStream_t);
template cudaError_t fixed_scan_on_device(const FixedInverse<double>&, cudaStream_t);

}  // namespace irevrnn
