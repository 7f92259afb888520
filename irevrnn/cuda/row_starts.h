// Where the rows of packed sequences begin, brought to a device.
#pragma once

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "op_inputs.h"
#include "scan_launch.h"

namespace irevrnn {

// Points a problem to a copy of its row starts on the current stream, without waiting for the device; returns the
// copy, to be kept alive. Options are those of a tensor on the device.
template <class T>
Tensor starts_on_device(Sizes<T>& s, const at::TensorOptions& options) {
  if (!s.row_starts) return Tensor();
  const Tensor starts = at::empty({s.steps + 1}, options.dtype(at::kLong));
  C10_CUDA_CHECK(write_numbers(s.row_starts, s.steps + 1, write<int64_t>(starts), c10::cuda::getCurrentCUDAStream()));
  s.row_starts = read<int64_t>(starts);
  return starts;
}

}  // namespace irevrnn
