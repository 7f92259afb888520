// The scan's kernels for sequences of bfloat16, with states in float.
#include "scan_kernels.cuh"

namespace irevrnn {

template cudaError_t scan_on_device(const Forward<float, bfloat16>&, cudaStream_t);
template cudaError_t scan_on_device(const Backward<float, bfloat16>&, float*, cudaStream_t);
template int64_t workspace_numbers(const Backward<float, bfloat16>&);

}  // namespace irevrnn
