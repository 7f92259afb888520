// What a gated block computes before and behind its recurrence, with its gradient, for float32 on the CPU:
//
//   irevrnn::block_input   z = scale * (weight norm(x) + bias)
//   irevrnn::block_output  y = x + GLU(weight GELU(h) + bias)
//
// PyTorch does this in ten operators. In chunks of some hundred steps their dispatch takes longer than they do, and over
// whole sequences each goes through memory once more.
#pragma once

#include "parallel.h"
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/zeros.h>

#include <torch/csrc/autograd/autograd.h>

#include "gate.h"
#include "scan_autograd.h"

namespace irevrnn {
namespace {

// (..., features) as (N, features), contiguous, and no negative view.
Tensor rows_of(const Tensor& x) { return x.resolve_neg().reshape({-1, x.size(-1)}).contiguous(); }

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

void gelu(const Tensor& x, const Tensor& y) {
  parallel_for(0, x.numel(), numbers_of_thread, [&](int64_t begin, int64_t end) {
    gelu_vector(x.const_data_ptr<float>(), y.mutable_data_ptr<float>(), begin, end);
  });
}

// The gradient of x, in the place of that of the result.
void gelu_gradient(const Tensor& x, const Tensor& grad) {
  parallel_for(0, x.numel(), numbers_of_thread, [&](int64_t begin, int64_t end) {
    gelu_backward_vector(x.const_data_ptr<float>(), grad.mutable_data_ptr<float>(), begin, end);
  });
}

// x without gaps, and without a negation that is yet to be done; undefined if it is missing.
Tensor contiguous(const Maybe& x) { return x && x->defined() ? x->resolve_neg().contiguous() : Tensor(); }

void gate(const Tensor& v, const Tensor& bias, const Tensor& x, const Tensor& y) {
  const int64_t rows = v.size(0), width = v.size(1) / 2;
  const Gate s{width, v.const_data_ptr<float>(), read<float>(bias), read<float>(x), y.mutable_data_ptr<float>()};
  const int64_t grain = std::max<int64_t>(1, numbers_of_thread / std::max<int64_t>(1, width));
  parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) { gate_vector(s, begin, end); });
}

// Writes the gradient of v, and adds that of the bias. Both are the same for any number of threads, if the rows are.
void gate_gradient(const Tensor& grad_y, const Tensor& v, const Tensor& bias, const Tensor& grad_v, Tensor& grad_bias) {
  const int64_t rows = v.size(0), width = v.size(1) / 2, size = 256, parts = (rows + size - 1) / size;
  const Tensor sums = at::zeros({parts, 2 * width}, v.options());
  const GateBackward s{width, v.const_data_ptr<float>(), read<float>(bias), grad_y.const_data_ptr<float>(),
                       grad_v.mutable_data_ptr<float>(), sums.mutable_data_ptr<float>()};
  parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      GateBackward part = s;
      part.grad_bias += 2 * width * i;
      gate_vector(part, i * size, std::min(rows, (i + 1) * size));
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

// The gradients of composite(inputs), by such operators.
template <class Composite>
variable_list composite_gradients(variable_list inputs, const Tensor& grad_y, const Composite& composite) {
  const bool again = at::GradMode::is_enabled();
  at::AutoGradMode with_graph(true);
  variable_list wanted, gradients(inputs.size());
  for (Tensor& x : inputs) {
    if (!x.defined() || !x.requires_grad()) continue;
    x = x.view_as(x);  // an alias: an input may have been computed from another, through which no gradient goes here
    wanted.push_back(x);
  }
  if (wanted.empty()) return gradients;
  const variable_list found = torch::autograd::grad({composite(inputs)}, wanted, {grad_y}, true, again, true);
  for (size_t i = 0, next = 0; i < inputs.size(); ++i) {
    if (inputs[i].defined() && inputs[i].requires_grad()) gradients[i] = found[next++];
  }
  return gradients;
}

bool wants_gradient(const Tensor& x) { return x.defined() && x.requires_grad(); }

// z in the shape of x, and what its gradient is computed from.
struct InputResults {
  Tensor z, normed, mean, rstd, scaled;
};

InputResults block_input_of(const Tensor& x_, const Maybe& norm_weight, const Maybe& norm_bias, double eps, bool norm,
                            const Tensor& weight, const Maybe& bias, const Tensor& scale) {
  const Tensor x = rows_of(x_);
  Tensor normed = x, mean, rstd;
  if (norm) std::tie(normed, mean, rstd) = at::native_layer_norm(x, {x.size(1)}, norm_weight, norm_bias, eps);
  const Tensor scaled = weight * scale.unsqueeze(1);
  const Tensor z = bias ? at::addmm(*bias * scale, normed, scaled.t()) : at::mm(normed, scaled.t());
  std::vector<int64_t> sizes = x_.sizes().vec();
  sizes.back() = weight.size(0);
  return {z.view(sizes), normed, mean, rstd, scaled};
}

struct BlockInput : torch::autograd::Function<BlockInput> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Maybe& norm_weight, const Maybe& norm_bias,
                        double eps, bool norm, const Tensor& weight, const Maybe& bias, const Tensor& scale) {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    const InputResults r = block_input_of(x, norm_weight, norm_bias, eps, norm, weight, bias, scale);
    const Tensor normed = wants_gradient(weight) || wants_gradient(scale) ? r.normed : Tensor();
    ctx->save_for_backward({x, norm_weight.value_or(Tensor()), norm_bias.value_or(Tensor()), weight,
                            bias.value_or(Tensor()), scale, normed, r.mean, r.rstd, r.scaled});
    ctx->saved_data["eps"] = eps;
    return r.z;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& arriving) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &norm_weight = saved[1], &norm_bias = saved[2], &weight = saved[3];
    const Tensor &bias = saved[4], &scale = saved[5], &normed = saved[6], &mean = saved[7];
    const double eps = ctx->saved_data["eps"].toDouble();
    if (needs_composite(arriving[0])) {
      const variable_list inputs(saved.begin(), saved.begin() + 6);
      const variable_list found = composite_gradients(inputs, arriving[0], [&](const variable_list& in) {
        const Tensor y = mean.defined() ? at::layer_norm(in[0], {in[0].size(-1)}, maybe(in[1]), maybe(in[2]), eps) : in[0];
        return at::linear(y, in[3], maybe(in[4])) * in[5];
      });
      return {found[0], found[1], found[2], Tensor(), Tensor(), found[3], found[4], found[5]};
    }
    const Tensor grad_z = rows_of(arriving[0]);
    Tensor grad_x, grad_norm_weight, grad_norm_bias, grad_weight, grad_bias, grad_scale;
    if (normed.defined()) {
      const Tensor grad_scaled = at::mm(grad_z.t(), normed);
      grad_weight = grad_scaled * scale.unsqueeze(1);
      grad_scale = (grad_scaled * weight).sum(1);
    }
    if (bias.defined() && (wants_gradient(bias) || grad_scale.defined())) {
      const Tensor grad_sum = grad_z.sum(0);
      grad_bias = grad_sum * scale;
      if (grad_scale.defined()) grad_scale += grad_sum * bias;
    }
    if (wants_gradient(x) || wants_gradient(norm_weight) || wants_gradient(norm_bias)) {
      grad_x = at::mm(grad_z, saved[9]);
      if (mean.defined()) {
        std::tie(grad_x, grad_norm_weight, grad_norm_bias) = at::native_layer_norm_backward(
            grad_x, rows_of(x), {x.size(-1)}, mean, saved[8], maybe(norm_weight), maybe(norm_bias),
            std::array<bool, 3>{wants_gradient(x), norm_weight.defined(), norm_bias.defined()});
      }
      grad_x = wants_gradient(x) ? grad_x.view(x.sizes()) : Tensor();
    }
    return {grad_x, grad_norm_weight, grad_norm_bias, Tensor(), Tensor(), grad_weight, grad_bias, grad_scale};
  }
};

// y; where active = GELU(h) and v = weight active are defined, they are kept.
Tensor block_output_of(const Tensor& h_, const Tensor& weight, const Tensor& bias, const Tensor& x_,
                       const Tensor& active, const Tensor& v) {
  TORCH_CHECK_VALUE(h_.is_cpu() && h_.scalar_type() == at::kFloat && weight.dim() == 2 && weight.size(0) % 2 == 0,
                    "h must be float32 on the CPU and weight (2 * width, hidden); got ", h_.scalar_type(), " on ",
                    h_.device(), " and shape ", weight.sizes());
  std::vector<int64_t> sizes = h_.sizes().vec();
  sizes.back() = weight.size(0) / 2;
  if (x_.defined()) check_like(h_, x_, sizes, "x");
  if (bias.defined()) check_like(h_, bias, weight.size(0), "bias");
  const Tensor h = rows_of(h_), x = x_.defined() ? rows_of(x_) : x_;
  const Tensor y = allocate({h.size(0), weight.size(0) / 2}, h.options());
  each_part(h.size(0), [&](const auto& part) {
    const Tensor of_h = part(h), of_active = active.defined() ? part(active) : at::empty_like(of_h);
    gelu(of_h, of_active);
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
    const Tensor y = block_output_of(h, weight, contiguous(bias), x.value_or(Tensor()), active, v);
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
      const variable_list inputs(saved.begin(), saved.begin() + 3);
      const variable_list found = composite_gradients(inputs, arriving[0], [](const variable_list& in) {
        return at::glu(at::linear(at::gelu(in[0]), in[1], maybe(in[2])), -1);
      });
      return {found[0], found[1], found[2], grad_x};
    }
    const Tensor h_rows = rows_of(h), y_rows = rows_of(grad_y), grad_h = allocate(h_rows.sizes(), h.options());
    const Tensor bias_numbers = contiguous(maybe(bias));
    Tensor grad_bias = at::zeros({weight.size(0)}, h.options()), grad_weight;
    if (saved[3].defined()) grad_weight = at::zeros(weight.sizes(), h.options());
    each_part(h_rows.size(0), [&](const auto& part) {
      const Tensor of_v = part(saved[4]), grad_v = at::empty(of_v.sizes(), h.options());
      gate_gradient(part(y_rows), of_v, bias_numbers, grad_v, grad_bias);
      if (grad_weight.defined()) grad_weight.addmm_(grad_v.t(), part(saved[3]));
      Tensor of_h = part(grad_h);
      at::mm_out(of_h, grad_v, weight);
      gelu_gradient(part(h_rows), of_h);
    });
    return {grad_h.view(h.sizes()), grad_weight, bias.defined() ? grad_bias : Tensor(), grad_x};
  }
};

Tensor block_input(const Tensor& x, const Maybe& norm_weight, const Maybe& norm_bias, double eps, bool norm,
                   const Tensor& weight, const Maybe& bias, const Tensor& scale) {
  if (differentiated({x, weight, scale}) || any_differentiated(norm_weight, norm_bias, bias)) {
    return BlockInput::apply(x, norm_weight, norm_bias, eps, norm, weight, bias, scale);
  }
  at::AutoDispatchBelowADInplaceOrView past_this_function;
  return block_input_of(x, norm_weight, norm_bias, eps, norm, weight, bias, scale).z;
}

Tensor block_output(const Tensor& h, const Tensor& weight, const Maybe& bias, const Maybe& x) {
  if (differentiated({h, weight}) || any_differentiated(bias, x)) return BlockOutput::apply(h, weight, bias, x);
  at::AutoDispatchBelowADInplaceOrView past_this_function;
  return block_output_of(h, weight, contiguous(bias), x.value_or(Tensor()), Tensor(), Tensor());
}

}  // namespace
}  // namespace irevrnn
