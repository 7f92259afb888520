// irevrnn::block_output, what a gated block computes behind its recurrence, y = x + GLU(weight GELU(h) + bias), with its
// gradient, for float32 on the CPU. Each of PyTorch's operators for this goes through memory once more.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <torch/csrc/autograd/autograd.h>

#include "gate.h"
#include "parallel.h"
#include "scan_autograd.h"

namespace irevrnn {
namespace {

// (..., features) as (N, features), contiguous, and no negative view; undefined if it is missing.
Tensor rows_of(const Tensor& x) {
  return x.defined() ? x.resolve_neg().reshape({-1, x.size(-1)}).contiguous() : x;
}

// Calls fn(part) for parts of the rows that go through all steps of an operator while they are in the caches; part(x) are
// those of x.
template <class Fn>
void each_part(int64_t rows, const Fn& fn) {
  constexpr int64_t most = 2048;
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    fn([first, count](const Tensor& x) { return x.defined() ? x.narrow(0, first, count) : x; });
  }
}

constexpr int64_t numbers_of_thread = 1 << 15;

// y becomes GELU(x), or the gradient of x where it is that of the result.
void gelu(void (&of)(const float*, float*, int64_t, int64_t), const Tensor& x, const Tensor& y) {
  parallel_for(0, x.numel(), numbers_of_thread, [&](int64_t begin, int64_t end) {
    of(read<float>(x), write<float>(y), begin, end);
  });
}

void gate(const Tensor& v, const Tensor& bias, const Tensor& x, const Tensor& y) {
  const int64_t width = v.size(1) / 2, grain = std::max<int64_t>(1, numbers_of_thread / std::max<int64_t>(1, width));
  parallel_for(0, v.size(0), grain, [&](int64_t begin, int64_t end) {
    gate_vector(width, read<float>(v), read<float>(bias), read<float>(x), write<float>(y), begin, end);
  });
}

// Writes the gradient of v, and adds that of the bias. Both are the same for any number of threads, if the rows are.
void gate_gradient(const Tensor& grad_y, const Tensor& v, const Tensor& bias, const Tensor& grad_v, Tensor& grad_bias) {
  const int64_t rows = v.size(0), width = v.size(1) / 2, size = 256, parts = (rows + size - 1) / size;
  const Tensor sums = at::zeros({parts, 2 * width}, v.options());
  parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      gate_backward_vector(width, read<float>(v), read<float>(bias), read<float>(grad_y), write<float>(grad_v),
                           write<float>(sums) + 2 * width * i, i * size, std::min(rows, (i + 1) * size));
    }
  });
  grad_bias += sums.sum(0);
}

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

// y; where active = GELU(h) and v = weight active are defined, they are kept.
Tensor block_output_of(const Tensor& h_, const Tensor& weight, const Tensor& bias_, const Tensor& x_,
                       const Tensor& active, const Tensor& v) {
  std::vector<int64_t> sizes = h_.sizes().vec();
  sizes.back() = weight.size(0) / 2;
  checked(h_, weight, {2 * sizes.back(), h_.size(-1)}, "weight");
  if (x_.defined()) checked(h_, x_, sizes, "x");
  if (bias_.defined()) checked(h_, bias_, weight.size(0), "bias");
  const Tensor h = rows_of(h_), x = rows_of(x_), bias = rows_of(bias_);
  const Tensor y = allocate({h.size(0), weight.size(0) / 2}, h.options());
  each_part(h.size(0), [&](const auto& part) {
    const Tensor of_h = part(h), of_active = active.defined() ? part(active) : at::empty_like(of_h);
    gelu(gelu_vector, of_h, of_active);
    Tensor of_v = v.defined() ? part(v) : at::empty({of_h.size(0), weight.size(0)}, h.options());
    at::mm_out(of_v, of_active, weight.t());
    gate(of_v, bias, part(x), part(y));
  });
  return y.view(sizes);
}

struct BlockOutput : torch::autograd::Function<BlockOutput> {
  static Tensor forward(AutogradContext* ctx, const Tensor& h, const Tensor& weight, const Maybe& bias,
                        const Maybe& x) {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    const int64_t rows = h.numel() / std::max<int64_t>(1, h.size(-1));
    const Tensor active = weight.requires_grad() ? allocate({rows, h.size(-1)}, h.options()) : Tensor();
    const Tensor v = allocate({rows, weight.size(0)}, h.options());
    const Tensor y = block_output_of(h, weight, bias.value_or(Tensor()), x.value_or(Tensor()), active, v);
    ctx->save_for_backward({h, weight, bias.value_or(Tensor()), active, v});
    ctx->saved_data["residual"] = x.has_value();
    return y;
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
    const Tensor h_rows = rows_of(h), y_rows = rows_of(grad_y), grad_h = allocate(h_rows.sizes(), h.options());
    const Tensor bias_numbers = rows_of(bias);
    Tensor grad_bias = at::zeros({weight.size(0)}, h.options()), grad_weight;
    if (saved[3].defined()) grad_weight = at::zeros(weight.sizes(), h.options());
    each_part(h_rows.size(0), [&](const auto& part) {
      const Tensor of_v = part(saved[4]), grad_v = at::empty(of_v.sizes(), h.options());
      gate_gradient(part(y_rows), of_v, bias_numbers, grad_v, grad_bias);
      if (grad_weight.defined()) grad_weight.addmm_(grad_v.t(), part(saved[3]));
      Tensor of_h = part(grad_h);
      at::mm_out(of_h, grad_v, weight);
      gelu(gelu_backward_vector, part(h_rows), of_h);
    });
    return {grad_h.view(h.sizes()), grad_weight, bias.defined() ? grad_bias : Tensor(), grad_x};
  }
};

Tensor block_output(const Tensor& h, const Tensor& weight, const Maybe& bias, const Maybe& x) {
  if (differentiated({h, weight}) || any_differentiated(bias, x)) return BlockOutput::apply(h, weight, bias, x);
  at::AutoDispatchBelowADInplaceOrView past_this_function;
  return block_output_of(h, weight, bias.value_or(Tensor()), x.value_or(Tensor()), Tensor(), Tensor());
}

}  // namespace
}  // namespace irevrnn
