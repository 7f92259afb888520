#include "scan_kernels.cuh"

namespace irevrnn {

template cudaError_t scan_on_device(const Forward<double>&, cudaStream_t);
template cudaError_t scan_on_device(const Backward<double>&, double*, cudaStream_t);
template int64_t workspace_numbers(const Backward<double>&);

}  // namespace irevrnn
