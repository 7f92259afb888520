// irevrnn::layer_step: a step of a layer, with its projection, norm and recurrence. It calls the operators that compute
// these for a sequence, so it gives their bits and has their gradients; called from Python one by one, they take longer
// than they compute.
#pragma once

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>

#include "scan_autograd.h"

namespace irevrnn {
namespace {

// x is (B, in), the states are (B, H) and resets (B,), or all are without a batch.
std::tuple<Tensor, Tensor> layer_step(const Tensor& x, const Tensor& weight, const Maybe& bias,
                                      const Maybe& norm_weight, const Maybe& norm_bias, double eps, bool norm,
                                      const Tensor& h, const Tensor& c, const Tensor& u, const Tensor& a,
                                      const Tensor& b, Name activation, Name coupling_activation, bool vectorize,
                                      const Maybe& resets) {
  std::optional<at::AutoDispatchBelowADInplaceOrView> not_differentiated;
  if (!differentiated({x, weight, h, c, u, a, b}) && !any_differentiated(bias, norm_weight, norm_bias)) {
    not_differentiated.emplace();
  }
  const bool batched = x.dim() > 1;
  const auto rows = [&](const Tensor& t) { return batched ? t : t.unsqueeze(0); };
  Tensor z = at::linear(rows(x), weight, bias);
  if (norm) z = at::layer_norm(z, {z.size(-1)}, norm_weight, norm_bias, eps);
  const auto [out, h_n, c_n, saved] =
      scan_operator().call(z.unsqueeze(0), rows(h), rows(c), u, a, b, std::nullopt, activation, coupling_activation,
                           usual_interval, vectorize, resets ? Maybe(resets->reshape({1, -1})) : resets);
  if (batched) return {h_n, c_n};
  return {h_n.squeeze(0), c_n.squeeze(0)};
}

}  // namespace
}  // namespace irevrnn
