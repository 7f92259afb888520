// The gradients of irevrnn::scan and, as irevrnn::fixed_gradient, of a pass in fixed point, on any device: saves what
// irevrnn::scan_backward takes, and calls it. In C++ for speed: in Python this took as long as a hundred steps of 64 units.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>

#include "scan_op.h"

namespace irevrnn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

const auto& scan_operator() {
  static const auto handle = find<decltype(scan_op<void>)>("irevrnn::scan");
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

// What a pass computed, and the states before it.
struct Pass {
  Tensor out, h_n, c_n, saved, h_0, c_0;
};

// A pass that has been run, as a function of its inputs: of h_0 and c_0, too, whose values it takes from the pass.
struct PassFunction : torch::autograd::Function<PassFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor&, const Tensor&, const Tensor&, const Tensor& u,
                               const Tensor& a, const Tensor& b, const Pass& pass, const Options& options,
                               AutogradContext*& applied) {
    // z is not saved: its gradient is that of the pre-activation, whose slope follows from out.
    ctx->save_for_backward({pass.out, pass.saved, pass.h_0, pass.c_0, u, a, b, options.batch_sizes.value_or(Tensor()),
                            options.resets.value_or(Tensor())});
    ctx->saved_data["activation"] = std::string(options.activation);
    ctx->saved_data["coupling_activation"] = std::string(options.coupling_activation);
    ctx->saved_data["interval"] = options.interval;
    ctx->saved_data["vectorize"] = options.vectorize;
    ctx->set_materialize_grads(false);  // an unused output costs no zero tensor of its size
    applied = ctx;
    return {pass.out, pass.h_n, pass.c_n, pass.saved};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& arriving) {
    const variable_list saved = ctx->get_saved_variables();
    std::optional<at::AutoDispatchBelowADInplaceOrView> not_differentiated;
    if (!at::GradMode::is_enabled()) not_differentiated.emplace();
    static const auto scan_backward = find<decltype(scan_backward_op<void>)>("irevrnn::scan_backward");
    auto [z, h_0, c_0, u, a, b] = scan_backward.call(
        maybe(arriving[0]), maybe(arriving[1]), maybe(arriving[2]), saved[0], saved[1], saved[2], saved[3], saved[4],
        saved[5], saved[6], maybe(saved[7]), ctx->saved_data["activation"].toStringRef(),
        ctx->saved_data["coupling_activation"].toStringRef(), ctx->saved_data["interval"].toInt(),
        ctx->saved_data["vectorize"].toBool(), maybe(saved[8]));
    return {z, h_0, c_0, u, a, b, Tensor(), Tensor(), Tensor()};  // none of pass, options and applied
  }

  // The outputs, which have the gradients.
  static variable_list of(const Tensor& z, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a,
                          const Tensor& b, const Pass& pass, const Options& options) {
    AutogradContext* applied = nullptr;
    try {
      return apply(z, h_0, c_0, u, a, b, pass, options, applied);
    } catch (...) {
      // torch.utils.checkpoint ends a recomputation so, in the middle of saving. Among what was about to be saved is an
      // output that holds the context: nothing would ever free the two.
      const auto node = pass.out.grad_fn();  // lives as long as its context is being changed
      if (applied && node) applied->save_for_backward({});
      throw;
    }
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
    const Tensor& z, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b,
    const Maybe& batch_sizes, Name activation, Name coupling_activation, int64_t interval, bool vectorize,
    const Maybe& resets) {
  const auto run = [&]() {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    return scan_operator().call(z, h_0, c_0, u, a, b, batch_sizes, activation, coupling_activation, interval, vectorize,
                                resets);
  };
  if (!differentiated({z, h_0, c_0, u, a, b})) return run();
  const auto [out, h_n, c_n, saved] = run();
  const Options options{batch_sizes, activation, coupling_activation, interval, vectorize, resets};
  const variable_list results =
      PassFunction::of(z, h_0, c_0, u, a, b, Pass{out, h_n, c_n, saved, h_0, c_0}, options);
  return {results[0], results[1], results[2], results[3]};
}

// A pass in fixed point as a function of its inputs. h_0 and c_0 only carry their gradients: the pass has its own states, h
// and c with their scales before it and after it.
std::tuple<Tensor, Tensor, Tensor> fixed_gradient(const Tensor& z, const Tensor& h_0, const Tensor& c_0,
                                                  const Tensor& u, const Tensor& a, const Tensor& b, const Tensor& out,
                                                  const Tensor& saved, at::TensorList states, Name activation,
                                                  Name coupling_activation, bool vectorize, const Maybe& resets,
                                                  const Maybe& batch_sizes) {
  const Options options{batch_sizes, activation, coupling_activation, usual_interval, vectorize, resets};
  const auto values = [&](size_t first) {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    const Tensor quanta = (127 - states[first + 2]).mul_(1 << 23).view(at::kFloat);  // 2^-bits
    const auto of = [&](int64_t i) { return states[first + i].to(z.scalar_type()).mul_(quanta.select(0, i)); };
    return std::pair(of(0), of(1));
  };
  const auto [h_before, c_before] = values(0);
  const auto [h_after, c_after] = values(3);
  const Pass pass{out, h_after, c_after, saved, h_before, c_before};
  const variable_list results = PassFunction::of(z, h_0, c_0, u, a, b, pass, options);
  return {results[0], results[1], results[2]};
}

}  // namespace
}  // namespace irevrnn
