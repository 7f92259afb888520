// The operators irevrnn::gate and irevrnn::gate_backward, for float32 on the CPU.
#pragma once

#include <ATen/Parallel.h>

#include "gate.h"
#include "op_inputs.h"

namespace irevrnn {

// Calls gate_vector on several threads.
template <class Problem>
void run_gate(const Problem& s, int64_t rows) {
  constexpr int64_t numbers_of_thread = 1 << 15;
  const int64_t grain = std::max<int64_t>(1, numbers_of_thread / std::max<int64_t>(1, s.width));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) { gate_vector(s, begin, end); });
}

// The sizes of y, given v (..., 2 * width).
inline std::vector<int64_t> gated_sizes(const Tensor& v) {
  TORCH_CHECK_VALUE(v.scalar_type() == at::kFloat && v.dim() > 0 && v.size(-1) % 2 == 0,
                    "v must be float32 of shape (..., 2 * width); got ", v.scalar_type(), " of shape ", v.sizes());
  std::vector<int64_t> sizes = v.sizes().vec();
  sizes.back() /= 2;
  return sizes;
}

inline Tensor gate_op(const Tensor& v_, const std::optional<Tensor>& x_) {
  const std::vector<int64_t> sizes = gated_sizes(v_);
  const Tensor v = v_.contiguous(), x = given(x_, v, sizes, "x", check_like);
  Tensor y = allocate(sizes, v.options());
  const float* residual = x.defined() ? x.const_data_ptr<float>() : nullptr;
  const Gate s{sizes.back(), v.const_data_ptr<float>(), residual, y.mutable_data_ptr<float>()};
  if (y.numel() > 0) run_gate(s, y.numel() / s.width);
  return y;
}

inline Tensor gate_backward_op(const Tensor& grad_y_, const Tensor& v_) {
  const std::vector<int64_t> sizes = gated_sizes(v_);
  const Tensor v = v_.contiguous(), grad_y = grad_y_.contiguous();
  check_like(v, grad_y, sizes, "grad_y");
  Tensor grad_v = allocate(v.sizes(), v.options());
  const GateBackward s{sizes.back(), v.const_data_ptr<float>(), grad_y.const_data_ptr<float>(),
                       grad_v.mutable_data_ptr<float>()};
  if (grad_y.numel() > 0) run_gate(s, grad_y.numel() / s.width);
  return grad_v;
}

}  // namespace irevrnn
