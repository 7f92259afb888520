// The gradient of irevrnn::scan, on any device: saves what irevrnn::scan_backward takes, and calls it. In C++ for speed:
// in Python this took as long as a hundred steps of 64 units.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>

#include "op_inputs.h"

namespace irevrnn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;
using Name = c10::string_view;

using Scan = std::tuple<Tensor, Tensor, Tensor, Tensor>(
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Maybe&,
    Name, Name, int64_t, bool, const Maybe&);
using ScanBackward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>(
    const Maybe&, const Maybe&, const Maybe&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
    const Tensor&, const Tensor&, const Tensor&, const Maybe&, Name, Name, int64_t, bool,
    const Maybe&);

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

const auto& scan_operator() {
  static const auto handle = find<Scan>("irevrnn::scan");
  return handle;
}

const auto& scan_backward_operator() {
  static const auto handle = find<ScanBackward>("irevrnn::scan_backward");
  return handle;
}

Maybe maybe(const Tensor& x) { return x.defined() ? Maybe(x) : std::nullopt; }

// All that is no tensor to differentiate by.
struct Options {
  Maybe batch_sizes;
  Name activation, coupling_activation;
  int64_t interval;
  bool vectorize;
  Maybe resets;
};

// The context of a function that is being applied, and its first output.
struct Applied {
  AutogradContext* context = nullptr;
  Tensor output;

  // Lets go of what an application that ended in an exception was about to save. That may be its own output, which
  // holds the context: nothing would ever free the two.
  void clear() const {
    if (!output.defined()) return;
    const auto node = output.grad_fn();  // lives as long as its context is being changed
    context->save_for_backward({});
  }
};

// Saves what scan_backward takes of a pass; out is z where that has half the precision of the states.
void save_pass(AutogradContext* ctx, const Tensor& out, const Tensor& saved, const Tensor& h_0, const Tensor& c_0,
               const Tensor& u, const Tensor& a, const Tensor& b, const Options& options) {
  ctx->save_for_backward({out, saved, h_0, c_0, u, a, b, options.batch_sizes.value_or(Tensor()),
                          options.resets.value_or(Tensor())});
  ctx->saved_data["activation"] = std::string(options.activation);
  ctx->saved_data["coupling_activation"] = std::string(options.coupling_activation);
  ctx->saved_data["interval"] = options.interval;
  ctx->saved_data["vectorize"] = options.vectorize;
  ctx->set_materialize_grads(false);  // an unused output costs no zero tensor of its size
}

// The gradients of z, h_0, c_0, u, a and b, from those of out, h_n and c_n, and what save_pass saved.
variable_list gradients_of_pass(AutogradContext* ctx, const variable_list& arriving) {
  const variable_list saved = ctx->get_saved_variables();
  std::optional<at::AutoDispatchBelowADInplaceOrView> not_differentiated;
  if (!at::GradMode::is_enabled()) not_differentiated.emplace();
  auto [z, h_0, c_0, u, a, b] = scan_backward_operator().call(
      maybe(arriving[0]), maybe(arriving[1]), maybe(arriving[2]), saved[0], saved[1], saved[2], saved[3],
      saved[4], saved[5], saved[6], maybe(saved[7]), ctx->saved_data["activation"].toStringRef(),
      ctx->saved_data["coupling_activation"].toStringRef(), ctx->saved_data["interval"].toInt(),
      ctx->saved_data["vectorize"].toBool(), maybe(saved[8]));
  return {z, h_0, c_0, u, a, b};
}

struct ScanFunction : torch::autograd::Function<ScanFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& z, const Tensor& h_0, const Tensor& c_0,
                               const Tensor& u, const Tensor& a, const Tensor& b, const Options& options,
                               Applied& applied) {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    auto [out, h_n, c_n, saved] =
        scan_operator().call(z, h_0, c_0, u, a, b, options.batch_sizes, options.activation,
                             options.coupling_activation, options.interval, options.vectorize, options.resets);
    // z is not saved: its gradient is that of the pre-activation, whose slope follows from out. But where out is
    // rounded, z takes as little memory, and the states follow from it to the last bit.
    const bool rounds = state_dtype(z) != z.scalar_type();
    save_pass(ctx, rounds ? z : out, saved, h_0, c_0, u, a, b, options);
    applied = {ctx, out};
    return {out, h_n, c_n, saved};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& arriving) {
    variable_list gradients = gradients_of_pass(ctx, arriving);
    gradients.resize(8);  // none of options and applied
    return gradients;
  }
};

// In either mode: the forward one is refused by the function's base class.
bool differentiated(std::initializer_list<std::reference_wrapper<const Tensor>> inputs) {
  return std::any_of(inputs.begin(), inputs.end(), [](const Tensor& x) {
    return (at::GradMode::is_enabled() && x.requires_grad()) || x._fw_grad(0).defined();
  });
}

// One of some that may be missing.
template <class... Inputs>
bool any_differentiated(const Inputs&... inputs) {
  return ((inputs && inputs->defined() && differentiated({*inputs})) || ...);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> differentiable_scan(
    const Tensor& z, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a,
    const Tensor& b, const Maybe& batch_sizes, Name activation, Name coupling_activation,
    int64_t interval, bool vectorize, const Maybe& resets) {
  if (!differentiated({z, h_0, c_0, u, a, b})) {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    return scan_operator().call(z, h_0, c_0, u, a, b, batch_sizes, activation, coupling_activation,
                                interval, vectorize, resets);
  }
  const Options options{batch_sizes, activation, coupling_activation, interval, vectorize, resets};
  Applied applied;
  try {
    const variable_list results = ScanFunction::apply(z, h_0, c_0, u, a, b, options, applied);
    return {results[0], results[1], results[2], results[3]};
  } catch (...) {  // torch.utils.checkpoint ends a recomputation so, in the middle of saving
    applied.clear();
    throw;
  }
}

}  // namespace

}  // namespace irevrnn
