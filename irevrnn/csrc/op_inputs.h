// What the operators share: the checks of their inputs and the sizes they hand to the kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "fresh.h"
#include "scan.h"

namespace irevrnn {

using at::Tensor;

inline Activation parse_activation(c10::string_view name) {
  if (name == "relu") return Activation::relu;
  if (name == "tanh") return Activation::tanh;
  if (name == "sigmoid") return Activation::sigmoid;
  if (name == "leaky_relu") return Activation::leaky_relu;
  TORCH_CHECK_VALUE(name == "identity",
                    "activation must be one of relu, tanh, sigmoid, leaky_relu, identity; got ", name);
  return Activation::identity;
}

inline void check_shape(const Tensor& x, at::IntArrayRef sizes, const char* name) {
  TORCH_CHECK_VALUE(x.sizes() == sizes, name, " must have shape ", sizes, "; got ", x.sizes());
}

inline void check_like(const Tensor& like, const Tensor& x, at::IntArrayRef sizes, const char* name) {
  check_shape(x, sizes, name);
  TORCH_CHECK_VALUE(x.scalar_type() == like.scalar_type() && x.device() == like.device(), name,
                    " must have the dtype and device of z; got ", x.scalar_type(), " on ", x.device());
}

// A tensor that may be missing, checked and made contiguous.
inline Tensor given(const std::optional<Tensor>& x, const Tensor& like, at::IntArrayRef sizes,
                    const char* name) {
  if (!x || !x->defined()) return Tensor();
  check_like(like, *x, sizes, name);
  return x->contiguous();
}

// The weights that all passes share, made contiguous and kept alive. like is z or out.
struct Weights {
  Tensor u, a, b;

  Weights(const Tensor& like, const Tensor& u, const Tensor& a, const Tensor& b)
      : u(u.contiguous()), a(a.contiguous()), b(b.contiguous()) {
    TORCH_CHECK_VALUE(like.dim() == 3 && like.size(0) > 0, "z must be (T, B, H) with T > 0; got ",
                      like.sizes());
    const int64_t hidden = like.size(2);
    TORCH_CHECK_VALUE(a.dim() == 2, "a must be (R, H); got ", a.sizes());
    check_like(like, u, {hidden}, "u");
    check_like(like, a, {a.size(0), hidden}, "a");
    check_like(like, b, {a.size(0), hidden}, "b");
  }
};

template <class T, class Problem>
void fill_sizes(Problem& s, const Tensor& like, const Weights& weights, c10::string_view activation,
                c10::string_view coupling_activation, int64_t interval) {
  s.steps = like.size(0);
  s.batch = like.size(1);
  s.hidden = like.size(2);
  s.couplings = static_cast<int>(weights.a.size(0));
  s.interval = interval;
  s.activation = parse_activation(activation);
  s.coupling_activation = parse_activation(coupling_activation);
  s.u = weights.u.const_data_ptr<T>();
  s.a = weights.a.const_data_ptr<T>();
  s.b = weights.b.const_data_ptr<T>();
}

// The six results of a backward pass, and where a kernel writes and reads.
struct Gradients {
  Tensor z, h_0, c_0, u, a, b;

  Gradients(const Tensor& out, const Weights& weights) {
    const auto like = [&](const Tensor& x) { return fresh(x.sizes(), out.options()); };
    z = like(out);
    h_0 = fresh({out.size(1), out.size(2)}, out.options());
    c_0 = fresh({out.size(1), out.size(2)}, out.options());
    u = like(weights.u);
    a = like(weights.a);
    b = like(weights.b);
    if (out.numel() == 0) {
      for (const Tensor& x : {u, a, b}) x.zero_();
    }
  }

  template <class T>
  void fill(Backward<T>& s) const {
    s.grad_z = z.mutable_data_ptr<T>();
    s.grad_h_0 = h_0.mutable_data_ptr<T>();
    s.grad_c_0 = c_0.mutable_data_ptr<T>();
    s.grad_u = u.mutable_data_ptr<T>();
    s.grad_a = a.mutable_data_ptr<T>();
    s.grad_b = b.mutable_data_ptr<T>();
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> all() const { return {z, h_0, c_0, u, a, b}; }
};

template <class T>
const T* data_or_null(const Tensor& x) { return x.defined() ? x.const_data_ptr<T>() : nullptr; }

template <class Fn>
void for_dtype(const Tensor& like, const Fn& fn) {
  if (like.scalar_type() == at::kFloat) return fn(float{});
  TORCH_CHECK_VALUE(like.scalar_type() == at::kDouble, "z must be float32 or float64; got ",
                    like.scalar_type());
  fn(double{});
}

}  // namespace irevrnn
