// Launches of the kernels: plain C++ signatures, for what knows nothing of nvcc. All are asynchronous and return whether
// the launch went well.
#pragma once

#include <cuda_runtime_api.h>

#include "fixed_scan.h"

namespace irevrnn {

// Forward, LaneForward or FixedInverse, whose pointers, row_starts too, are of the device.
template <class Problem>
cudaError_t scan_on_device(const Problem& s, cudaStream_t stream);
cudaError_t scan_on_device(const LaneWords& s, cudaStream_t stream);

// `workspace`, of the device, has workspace_numbers(s) numbers. cudaErrorMemoryAllocation: too many couplings to be replayed.
template <class T>
cudaError_t scan_on_device(const Backward<T>& s, T* workspace, cudaStream_t stream);
template <class T>
int64_t workspace_numbers(const Backward<T>& s);

// Writes numbers of the CPU to the device. They travel as arguments of kernels: there is no memory that
// must stay as it is until a copy is over, or until a captured graph is run.
cudaError_t write_numbers(const int64_t* from, int64_t count, int64_t* to, cudaStream_t stream);

}  // namespace irevrnn
