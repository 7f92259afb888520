// irevrnn::fixed_gradient: a pass in fixed point, as a function of its inputs, on any device. In C++ for the reason that
// scan_autograd.h gives.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include "fixed_point.h"
#include "scan_autograd.h"

namespace irevrnn {
namespace {

// The values of fixed-point numbers x, whose scales have these bits; on the CPU without operators, as in copy_of.
Tensor values_of(const Tensor& x, const Tensor& bits, at::ScalarType dtype) {
  if (!x.is_cpu() || !x.is_contiguous() || !bits.is_contiguous()) {
    return x.to(dtype).mul_((127 - bits).mul_(1 << 23).view(at::kFloat));
  }
  Tensor values = at::empty(x.sizes(), x.options().dtype(dtype));
  for_sequence<false>(values, [&](auto zero) {
    using T = decltype(zero);
    const int32_t *from = x.const_data_ptr<int32_t>(), *bits_of = bits.const_data_ptr<int32_t>();
    T* to = values.mutable_data_ptr<T>();
    for (int64_t i = 0, count = x.numel(); i < count; ++i) to[i] = scale_of<T>(bits_of[i]).values_of(from[i]);
  });
  return values;
}

// The results of a pass. The states, h and c with their scales before it and after it, are fixed-point numbers.
struct PassResults {
  Tensor out, saved;
  at::TensorList states;

  // h and c before the pass (0) or after it (1), as numbers of a dtype.
  std::pair<Tensor, Tensor> values(size_t end, at::ScalarType dtype) const {
    const Tensor &h = states[3 * end], &c = states[3 * end + 1], &scales = states[3 * end + 2];
    return {values_of(h, scales.select(0, 0), dtype), values_of(c, scales.select(0, 1), dtype)};
  }
};

struct FixedFunction : torch::autograd::Function<FixedFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& z, const Tensor&, const Tensor&, const Tensor& u,
                               const Tensor& a, const Tensor& b, const PassResults& pass, const Options& options) {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    const auto [h_0, c_0] = pass.values(0, z.scalar_type());
    const auto [h_n, c_n] = pass.values(1, z.scalar_type());
    save_pass(ctx, pass.out, pass.saved, h_0, c_0, u, a, b, options);
    return {pass.out, h_n, c_n};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& arriving) {
    variable_list gradients = gradients_of_pass(ctx, arriving);
    gradients.resize(8);  // none of pass and options
    return gradients;
  }
};

// h_0 and c_0 only carry their gradients: the pass has its own states.
std::tuple<Tensor, Tensor, Tensor> fixed_gradient(const Tensor& z, const Tensor& h_0, const Tensor& c_0,
                                                  const Tensor& u, const Tensor& a, const Tensor& b, const Tensor& out,
                                                  const Tensor& saved, at::TensorList states, Name activation,
                                                  Name coupling_activation, bool vectorize, const Maybe& resets,
                                                  const Maybe& batch_sizes) {
  TORCH_CHECK_VALUE(states.size() == 6, "states must be h, c and their scales before and after the pass; got ",
                    states.size(), " tensors");
  const Options options{batch_sizes, activation, coupling_activation, usual_interval, vectorize, resets};
  const variable_list results =
      FixedFunction::apply(z, h_0, c_0, u, a, b, PassResults{out, saved, states}, options);
  return {results[0], results[1], results[2]};
}

}  // namespace
}  // namespace irevrnn
