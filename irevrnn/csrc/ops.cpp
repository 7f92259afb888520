// The operators irevrnn::scan and irevrnn::scan_backward: schema, checks, and their CPU kernels.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>

#include "fresh.h"
#include "scan.h"

namespace irevrnn {
namespace {

using at::Tensor;

Activation parse_activation(c10::string_view name) {
  if (name == "relu") return Activation::relu;
  if (name == "tanh") return Activation::tanh;
  if (name == "sigmoid") return Activation::sigmoid;
  if (name == "leaky_relu") return Activation::leaky_relu;
  TORCH_CHECK_VALUE(name == "identity",
                    "activation must be one of relu, tanh, sigmoid, leaky_relu, identity; got ", name);
  return Activation::identity;
}

// The inputs that both passes share, made contiguous and kept alive.
struct Inputs {
  Tensor h_0, c_0, u, a, b;

  Inputs(const Tensor& like, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a,
         const Tensor& b)
      : h_0(h_0.contiguous()), c_0(c_0.contiguous()), u(u.contiguous()), a(a.contiguous()),
        b(b.contiguous()) {
    TORCH_CHECK_VALUE(like.dim() == 3 && like.size(0) > 0, "z must be (T, B, H) with T > 0; got ",
                      like.sizes());
    const int64_t batch = like.size(1), hidden = like.size(2);
    TORCH_CHECK_VALUE(a.dim() == 2, "a must be (R, H); got ", a.sizes());
    check(like, h_0, {batch, hidden}, "h_0");
    check(like, c_0, {batch, hidden}, "c_0");
    check(like, u, {hidden}, "u");
    check(like, a, {a.size(0), hidden}, "a");
    check(like, b, {a.size(0), hidden}, "b");
  }

  static void check(const Tensor& like, const Tensor& x, at::IntArrayRef sizes, const char* name) {
    TORCH_CHECK_VALUE(x.sizes() == sizes, name, " must have shape ", sizes, "; got ", x.sizes());
    TORCH_CHECK_VALUE(x.scalar_type() == like.scalar_type() && x.device() == like.device(), name,
                      " must have the dtype and device of z; got ", x.scalar_type(), " on ", x.device());
  }
};

template <class T, class Problem>
void fill_sizes(Problem& s, const Tensor& like, const Inputs& in, const Tensor& held,
                c10::string_view activation, c10::string_view coupling_activation, int64_t interval) {
  s.steps = like.size(0);
  s.batch = like.size(1);
  s.hidden = like.size(2);
  s.couplings = static_cast<int>(in.a.size(0));
  s.interval = interval;
  s.held_rows = held.size(0);
  s.activation = parse_activation(activation);
  s.coupling_activation = parse_activation(coupling_activation);
  s.h_0 = in.h_0.const_data_ptr<T>();
  s.c_0 = in.c_0.const_data_ptr<T>();
  s.u = in.u.const_data_ptr<T>();
  s.a = in.a.const_data_ptr<T>();
  s.b = in.b.const_data_ptr<T>();
}

template <class T, class Problem>
void launch(const Problem& s, bool vectorize) {
  if (s.lanes() == 0) return;
  if constexpr (std::is_same_v<T, float>) {
    if (vectorize) return scan_vector(s);
  }
  scan_scalar<T>(s);
}

template <class Fn>
void for_dtype(const Tensor& like, const Fn& fn) {
  if (like.scalar_type() == at::kFloat) return fn(float{});
  TORCH_CHECK_VALUE(like.scalar_type() == at::kDouble, "z must be float32 or float64; got ",
                    like.scalar_type());
  fn(double{});
}

// ops.held_shape in Python is the same rule.
std::vector<int64_t> held_shape(const Tensor& z, int64_t couplings, int64_t interval) {
  TORCH_CHECK_VALUE(interval >= 0, "interval must be at least 0; got ", interval);
  if (interval == 0) return {z.size(0), 2 * couplings, z.size(1), z.size(2)};
  return {(z.size(0) + interval - 1) / interval - 1, z.size(1), z.size(2)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> scan(
    const Tensor& z_, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a,
    const Tensor& b, c10::string_view activation, c10::string_view coupling_activation,
    int64_t interval, bool vectorize) {
  const Inputs in(z_, h_0, c_0, u, a, b);
  const Tensor z = z_.contiguous();
  Tensor out = fresh(z.sizes(), z.options());
  Tensor h_n = fresh(in.h_0.sizes(), z.options()), c_n = fresh(in.h_0.sizes(), z.options());
  Tensor held = fresh(held_shape(z, a.size(0), interval), z.options());
  for_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    Forward<T> s;
    fill_sizes<T>(s, z, in, held, activation, coupling_activation, interval);
    s.z = z.const_data_ptr<T>();
    s.out = out.mutable_data_ptr<T>();
    s.h_n = h_n.mutable_data_ptr<T>();
    s.c_n = c_n.mutable_data_ptr<T>();
    s.held = held.mutable_data_ptr<T>();
    launch<T>(s, vectorize);
  });
  return {out, h_n, c_n, held};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward(
    const std::optional<Tensor>& grad_out_, const std::optional<Tensor>& grad_h_n_,
    const std::optional<Tensor>& grad_c_n_, const Tensor& out_, const Tensor& held_,
    const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b,
    c10::string_view activation, c10::string_view coupling_activation, int64_t interval,
    bool vectorize) {
  const Inputs in(out_, h_0, c_0, u, a, b);
  const Tensor out = out_.contiguous(), held = held_.contiguous();
  TORCH_CHECK_VALUE(held.sizes() == at::IntArrayRef(held_shape(out, a.size(0), interval)),
                    "held does not fit out and interval; got shape ", held.sizes());
  const auto given = [&](const std::optional<Tensor>& x, at::IntArrayRef sizes, const char* name) {
    if (!x || !x->defined()) return Tensor();
    Inputs::check(out, *x, sizes, name);
    return x->contiguous();
  };
  const Tensor grad_out = given(grad_out_, out.sizes(), "grad_out");
  const Tensor grad_h_n = given(grad_h_n_, h_0.sizes(), "grad_h_n");
  const Tensor grad_c_n = given(grad_c_n_, h_0.sizes(), "grad_c_n");

  const auto gradient_of = [&](const Tensor& x) { return fresh(x.sizes(), out.options()); };
  Tensor grad_z = gradient_of(out), grad_h_0 = gradient_of(h_0), grad_c_0 = gradient_of(c_0);
  Tensor grad_u = gradient_of(u), grad_a = gradient_of(a), grad_b = gradient_of(b);
  if (out.numel() == 0) {
    for (const Tensor& x : {grad_u, grad_a, grad_b}) x.zero_();
  }
  for_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    const auto data = [](const Tensor& x) {
      return x.defined() ? x.const_data_ptr<T>() : nullptr;
    };
    Backward<T> s;
    fill_sizes<T>(s, out, in, held, activation, coupling_activation, interval);
    s.grad_out = data(grad_out);
    s.grad_h_n = data(grad_h_n);
    s.grad_c_n = data(grad_c_n);
    s.out = data(out);
    s.held = data(held);
    s.grad_z = grad_z.mutable_data_ptr<T>();
    s.grad_h_0 = grad_h_0.mutable_data_ptr<T>();
    s.grad_c_0 = grad_c_0.mutable_data_ptr<T>();
    s.grad_u = grad_u.mutable_data_ptr<T>();
    s.grad_a = grad_a.mutable_data_ptr<T>();
    s.grad_b = grad_b.mutable_data_ptr<T>();
    launch<T>(s, vectorize);
  });
  return {grad_z, grad_h_0, grad_c_0, grad_u, grad_a, grad_b};
}

}  // namespace

TORCH_LIBRARY(irevrnn, m) {
  m.def(
      "scan(Tensor z, Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, str activation, "
      "str coupling_activation, int interval, bool vectorize) "
      "-> (Tensor out, Tensor h_n, Tensor c_n, Tensor held)");
  m.def(
      "scan_backward(Tensor? grad_out, Tensor? grad_h_n, Tensor? grad_c_n, Tensor out, Tensor held, "
      "Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, str activation, "
      "str coupling_activation, int interval, bool vectorize) "
      "-> (Tensor grad_z, Tensor grad_h_0, Tensor grad_c_0, Tensor grad_u, Tensor grad_a, "
      "Tensor grad_b)");
}

TORCH_LIBRARY_IMPL(irevrnn, CPU, m) {
  m.impl("scan", &scan);
  m.impl("scan_backward", &scan_backward);
}

}  // namespace irevrnn
