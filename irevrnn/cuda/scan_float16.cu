// The scan's kernels for sequences of float16, with states in float.
#include "scan_kernels.cuh"

namespace irevrnn {

template cudaError_t scan_on_device(const Forward<float, float16>&, cudaStream_t);
template cudaError_t scan_on_device(const Backward<float, float16>&, float*, cudaStream_t);
template int64_t workspace_numbers(const Backward<float, float16>&);

}  // namespace irevrnn
