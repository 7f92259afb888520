// irevrnn::block_output, what a gated block computes behind its recurrence (block_parts.h), with its gradient, for float32 on
// the CPU. Each of PyTorch's operators for this goes through memory once more.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros_like.h>

#include <torch/csrc/autograd/autograd.h>

#include "block_parts.h"
#include "scan_autograd.h"

namespace irevrnn {
namespace {

// Whether gradients need operators that PyTorch knows: they may be differentiated once more, or are a batch of vectors
// (is_grads_batched).
bool needs_composite(const Tensor& grad_y) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet batched{DispatchKey::Batched, DispatchKey::FuncTorchBatched};
  return at::GradMode::is_enabled() || grad_y.key_set().has_any(batched);
}

// The gradients of h, weight and bias by such operators, through aliases: one may have been computed from another, through
// which no gradient goes here.
variable_list composite_gradients(const variable_list& inputs, const Tensor& grad_y) {
  const bool again = at::GradMode::is_enabled();
  at::AutoGradMode with_graph(true);
  variable_list aliases;
  for (const Tensor& x : inputs) {
    if (x.defined()) aliases.push_back(x.requires_grad() ? x.view_as(x) : x.detach().requires_grad_());
  }
  const Maybe bias = aliases.size() > 2 ? Maybe(aliases[2]) : std::nullopt;
  const Tensor y = at::glu(at::linear(at::gelu(aliases[0]), aliases[1], bias), -1);
  variable_list gradients = torch::autograd::grad({y}, aliases, {grad_y}, true, again);
  gradients.resize(inputs.size());
  return gradients;
}

Tensor block_output_of(const Tensor& h, const Tensor& weight, const Maybe& bias, const Maybe& x) {
  std::vector<int64_t> sizes = h.sizes().vec();
  sizes.back() = weight.size(0) / 2;
  checked(h, weight, {2 * sizes.back(), h.size(-1)}, "weight");
  const Tensor residual = checked(h, x, sizes, at::kFloat, "x");
  const Tensor shift = checked(h, bias, weight.size(0), at::kFloat, "bias");
  return Outer{plain(weight), plain(shift), residual.defined()}.y(h, residual);
}

struct BlockOutput : torch::autograd::Function<BlockOutput> {
  static Tensor forward(AutogradContext* ctx, const Tensor& h, const Tensor& weight, const Maybe& bias, const Maybe& x) {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    ctx->save_for_backward({h, weight, bias.value_or(Tensor())});
    ctx->saved_data["residual"] = x.has_value();
    return block_output_of(h, weight, bias, x);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& arriving) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &h = saved[0], &weight = saved[1], &bias = saved[2], grad_y = arriving[0].contiguous();
    const Tensor grad_x = ctx->saved_data["residual"].toBool() ? grad_y : Tensor();
    if (needs_composite(arriving[0])) {
      const variable_list found = composite_gradients({h, weight, bias}, arriving[0]);
      return {found[0], found[1], found[2], grad_x};
    }
    const auto sum = [](const Tensor& x) {
      return x.defined() && x.requires_grad() ? at::zeros_like(x, at::MemoryFormat::Contiguous) : Tensor();
    };
    const std::array<Tensor, 2> sums{sum(weight), sum(bias)};
    const Tensor grad_h = Outer{plain(weight), plain(bias), grad_x.defined()}.backward(h, grad_y, sums.data());
    return {grad_h, sums[0], sums[1], grad_x};
  }
};

Tensor block_output(const Tensor& h, const Tensor& weight, const Maybe& bias, const Maybe& x) {
  if (differentiated({h, weight}) || any_differentiated(bias, x)) return BlockOutput::apply(h, weight, bias, x);
  at::AutoDispatchBelowADInplaceOrView past_this_function;
  return block_output_of(h, weight, bias, x);
}

}  // namespace
}  // namespace irevrnn
