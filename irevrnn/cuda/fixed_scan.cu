// The fixed-point kernels.
#include "scan_kernels.cuh"

namespace irevrnn {

cudaError_t scan_on_device(const LaneWords& s, cudaStream_t stream) {
  return run_grid(GatherWork{s}, Grid::of(s.lanes), stream);
}

template cudaError_t scan_on_device(const LaneForward<float>&, cudaStream_t);
template cudaError_t scan_on_device(const LaneForward<double>&, cudaStream_t);
template cudaError_t scan_on_device(const FixedInverse<float>&, cudaStream_t);
template cudaError_t scan_on_device(const FixedInverse<double>&, cudaStream_t);

}  // namespace irevrnn
