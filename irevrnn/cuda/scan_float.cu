#include "scan_kernels.cuh"

namespace irevrnn {

template cudaError_t scan_on_device(const Forward<float>&, cudaStream_t);
template cudaError_t scan_on_device(const Backward<float>&, float*, cudaStream_t);
template int64_t workspace_numbers(const Backward<float>&);

}  // namespace irevrnn
