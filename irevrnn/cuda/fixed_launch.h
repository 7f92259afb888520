// Launches of the fixed-point kernels, like those of scan_launch.h.
#pragma once

#include <cuda_runtime_api.h>

#include "fixed_scan.h"

namespace irevrnn {

template <class T>
cudaError_t fixed_scan_on_device(const LaneForward<T>& s, cudaStream_t stream);
template <class T>
cudaError_t fixed_scan_on_device(const FixedInverse<T>& s, cudaStream_t stream);
cudaError_t fixed_scan_on_device(const LaneWords& s, cudaStream_t stream);

}  // namespace irevrnn
