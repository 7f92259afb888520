// The launches of the fixed-point kernels: asynchronous, on a stream of the current device.
#pragma once

#include <cuda_runtime_api.h>

#include "fixed_scan.h"

namespace irevrnn {

template <class T>
cudaError_t launch(const LaneForward<T>& s, cudaStream_t stream);
template <class T>
cudaError_t launch(const FixedInverse<T>& s, cudaStream_t stream);
cudaError_t launch(const LaneWords& s, cudaStream_t stream);

}  // namespace irevrnn
