// The CUDA kernels of the operators.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <vector>

#include "fixed_ops.h"
#include "scan_launch.h"
#include "scan_op.h"

namespace irevrnn {
namespace {

// On the current stream, without waiting for the device: so a graph may capture it.
struct LaunchOnCuda {
  LaunchOnCuda(const Tensor& like, bool /* vectorize: for the CPU */) : guard(like.device()), options(like.options()) {}

  template <class Problem>
  void operator()(Problem s) const {
    Tensor starts;
    if constexpr (!std::is_same_v<Problem, LaneWords>) starts = starts_on_device(s);
    C10_CUDA_CHECK(scan_on_device(s, c10::cuda::getCurrentCUDAStream()));
  }

  template <class T>
  void operator()(Backward<T> s) const {
    const Tensor starts = starts_on_device(s);
    const Tensor workspace = at::empty({workspace_numbers(s)}, options.dtype(c10::CppTypeToScalarType<T>::value));
    const cudaError_t status = scan_on_device(s, write<T>(workspace), c10::cuda::getCurrentCUDAStream());
    TORCH_CHECK_VALUE(status != cudaErrorMemoryAllocation, "a GPU has no room to replay ", s.couplings,
                      " couplings, but 10 in float32 and 5 in float64: use memory='store', which replays none");
    C10_CUDA_CHECK(status);
  }

  // Points a problem of packed sequences to a copy of its row starts; returns the copy, to be kept alive.
  template <class T>
  Tensor starts_on_device(Sizes<T>& s) const {
    if (!s.row_starts) return Tensor();
    const Tensor starts = at::empty({s.steps + 1}, options.dtype(at::kLong));
    C10_CUDA_CHECK(write_numbers(s.row_starts, s.steps + 1, write<int64_t>(starts), c10::cuda::getCurrentCUDAStream()));
    s.row_starts = read<int64_t>(starts);
    return starts;
  }

  c10::cuda::CUDAGuard guard;
  at::TensorOptions options;  // of a tensor on the device
};

// The same number as on the CPU (ops.cpp).
Tensor state_hash(at::TensorList states) {
  const c10::cuda::OptionalCUDAGuard guard(states[0].device());
  std::vector<Tensor> parts;
  for (const Tensor& x : states) {
    parts.push_back(x.scalar_type() == at::kLong ? x.flatten() - 1 : x.flatten().to(at::kLong));
  }
  const Tensor numbers = at::cat(parts);
  const Tensor weights = at::arange(numbers.size(0), numbers.options())
                             .mul_(static_cast<int64_t>(hash_step))
                             .add_(static_cast<int64_t>(hash_first));
  return weights.mul_(numbers).sum();
}

}  // namespace

TORCH_LIBRARY_IMPL(irevrnn, CUDA, m) {
  m.impl("scan", &scan_op<LaunchOnCuda>);
  m.impl("scan_backward", &scan_backward_op<LaunchOnCuda>);
  m.impl("selective_scan", &selective_scan_op<LaunchOnCuda>);
  m.impl("selective_scan_backward", &selective_scan_backward_op<LaunchOnCuda>);
  m.impl("fixed_scan", &fixed_scan_op<LaunchOnCuda>);
  m.impl("fixed_unscan", &fixed_unscan_op<LaunchOnCuda>);
  m.impl("state_hash", &state_hash);
}

}  // namespace irevrnn
