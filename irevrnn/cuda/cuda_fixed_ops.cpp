// The fixed-point operators on a CUDA device, on its current stream.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <vector>

#include "fixed_lane_ops.h"
#include "fixed_launch.h"
#include "row_starts.h"

namespace irevrnn {
namespace {

// On the current stream.
struct Launch {
  at::TensorOptions options;  // of a tensor on the device

  template <class Problem>
  void operator()(Problem s) const {
    Tensor starts;
    if constexpr (!std::is_same_v<Problem, LaneWords>) starts = starts_on_device(s, options);
    C10_CUDA_CHECK(fixed_scan_on_device(s, c10::cuda::getCurrentCUDAStream()));
  }
};

FixedResults fixed_scan(const Tensor& z, at::TensorList states, int64_t steps, const Tensor& u, const Tensor& a,
                        const Tensor& b, c10::string_view activation, c10::string_view coupling_activation, bool record,
                        bool save, bool, const std::optional<Tensor>& resets,
                        const std::optional<Tensor>& batch_sizes) {
  const c10::cuda::OptionalCUDAGuard guard(z.device());
  const FixedStates before(states);
  const auto inputs = [&] {
    return FixedTensors(z, before, steps, before.h.numel(), false, u, a, b, activation, coupling_activation,
                        save, resets, batch_sizes);
  };
  return scan_lanes(inputs, record, Launch{z.options()});
}

FixedInverseResults fixed_unscan(const Tensor& z, at::TensorList states, int64_t steps, const Tensor& words, const Tensor& starts,
                                 const Tensor& counts, const Tensor& u, const Tensor& a, const Tensor& b,
                                 c10::string_view activation, c10::string_view coupling_activation, bool,
                                 const std::optional<Tensor>& resets,
                                 const std::optional<Tensor>& batch_sizes) {
  const c10::cuda::OptionalCUDAGuard guard(z.device());
  const FixedStates after(states);
  const FixedTensors x(z, after, steps, after.h.numel(), true, u, a, b, activation, coupling_activation,
                       true, resets, batch_sizes);
  return unscan_lanes(x, FixedWords(z, words, starts, counts), Launch{z.options()});
}

// The same number as on the CPU (ops.cpp).
Tensor state_hash(at::TensorList states) {
  check_hashed(states);
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
  m.impl("fixed_scan", &fixed_scan);
  m.impl("fixed_unscan", &fixed_unscan);
  m.impl("state_hash", &state_hash);
}

}  // namespace irevrnn
