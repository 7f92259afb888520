// The checks of the operators' inputs, and the sizes that they pass to the kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <iterator>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "allocate.h"
#include "scan.h"

namespace irevrnn {

using at::Tensor;

// argument: what an error calls the name.
inline Activation parse_activation(c10::string_view name, const char* argument = "an activation") {
  std::string known;
  for (size_t i = 0; i < std::size(activation_names); ++i) {
    if (name == activation_names[i]) return static_cast<Activation>(i);
    known += (i > 0 ? ", " : "") + std::string(activation_names[i]);
  }
  TORCH_CHECK_VALUE(false, argument, " must be one of ", known, "; the compiled kernels do not have ", name,
                    ": add it to irevrnn/csrc/activations.h");
}

inline void check_shape(const Tensor& x, at::IntArrayRef sizes, const char* name) {
  TORCH_CHECK_VALUE(x.sizes() == sizes, name, " must have shape ", sizes, "; got ", x.sizes());
}

// The dtype of states, weights and what is saved, for a sequence z or out.
inline at::ScalarType state_dtype(const Tensor& sequence) {
  return sequence.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline at::TensorOptions state_options(const Tensor& sequence) {
  return sequence.options().dtype(state_dtype(sequence));
}

inline void check_dtype(const Tensor& like, const Tensor& x, at::ScalarType dtype, const char* name) {
  TORCH_CHECK_VALUE(x.scalar_type() == dtype && x.device() == like.device(), name, " must have the dtype ",
                    dtype, " and the device of z, ", like.device(), "; got ", x.scalar_type(), " on ",
                    x.device());
}

// A sequence, like z or out.
inline void check_like(const Tensor& like, const Tensor& x, at::IntArrayRef sizes, const char* name) {
  check_shape(x, sizes, name);
  check_dtype(like, x, like.scalar_type(), name);
}

// States, weights, or what is saved.
inline void check_state(const Tensor& like, const Tensor& x, at::IntArrayRef sizes, const char* name) {
  check_shape(x, sizes, name);
  check_dtype(like, x, state_dtype(like), name);
}

// A tensor that may be missing, checked and made contiguous.
template <class Check>
Tensor given(const std::optional<Tensor>& x, const Tensor& like, at::IntArrayRef sizes, const char* name,
             const Check& check) {
  if (!x || !x->defined()) return Tensor();
  check(like, *x, sizes, name);
  return x->contiguous();
}

// resets, (T, B) or packed (N,), for a sequence z or out.
inline Tensor given_resets(const std::optional<Tensor>& resets, const Tensor& like) {
  if (!resets || !resets->defined()) return Tensor();
  check_shape(*resets, like.sizes().slice(0, like.dim() - 1), "resets");
  TORCH_CHECK_TYPE(resets->scalar_type() == at::kBool, "resets must be bool; got ", resets->scalar_type());
  TORCH_CHECK_VALUE(resets->device() == like.device(), "resets must be on the device of z, ", like.device(),
                    "; got ", resets->device());
  return resets->contiguous();
}

// Steps, batch and hidden units of a sequence, and where its rows begin if it is packed.
struct Layout {
  int64_t steps, batch, hidden;
  std::vector<int64_t> row_starts;

  // z (T, B, H).
  explicit Layout(const Tensor& z) {
    TORCH_CHECK_VALUE(z.dim() == 3 && z.size(0) > 0, "z must be (T, B, H) with T > 0; got ", z.sizes());
    steps = z.size(0);
    batch = z.size(1);
    hidden = z.size(2);
  }

  // z (N, H), packed with batch_sizes (T,), for states h_0 (B, H).
  Layout(const Tensor& z, const Tensor& h_0, const Tensor& batch_sizes) {
    TORCH_CHECK_VALUE(z.dim() == 2 && h_0.dim() == 2, "z must be (N, H) and h_0 (B, H) with batch_sizes; ",
                      "got ", z.sizes(), " and ", h_0.sizes());
    TORCH_CHECK_VALUE(batch_sizes.dim() == 1 && batch_sizes.size(0) > 0 &&
                          batch_sizes.scalar_type() == at::kLong && batch_sizes.device().is_cpu(),
                      "batch_sizes must be (T,) int64 on the CPU with T > 0; got ", batch_sizes.sizes(),
                      " ", batch_sizes.scalar_type());
    steps = batch_sizes.size(0);
    batch = h_0.size(0);
    hidden = z.size(1);
    const Tensor sizes = batch_sizes.contiguous();
    const int64_t* size = sizes.const_data_ptr<int64_t>();
    row_starts.resize(steps + 1, 0);
    for (int64_t t = 0; t < steps; ++t) {
      TORCH_CHECK_VALUE(size[t] > 0 && size[t] <= (t == 0 ? batch : size[t - 1]),
                        "batch_sizes must fall from at most B = ", batch, " to at least 1; step ", t,
                        " has ", size[t]);
      row_starts[t + 1] = row_starts[t] + size[t];
    }
    TORCH_CHECK_VALUE(row_starts[steps] == z.size(0), "batch_sizes must sum to the ", z.size(0),
                      " rows of z");
  }

  static Layout of(const Tensor& z, const Tensor& h_0, const std::optional<Tensor>& batch_sizes) {
    return batch_sizes && batch_sizes->defined() ? Layout(z, h_0, *batch_sizes) : Layout(z);
  }

  bool packed() const { return !row_starts.empty(); }
};

// The weights that all passes share, made contiguous and kept alive. like is z or out.
struct Weights {
  Tensor u, a, b;

  Weights(const Tensor& like, const Tensor& u, const Tensor& a, const Tensor& b)
      : u(u.contiguous()), a(a.contiguous()), b(b.contiguous()) {
    const int64_t hidden = like.size(-1);
    TORCH_CHECK_VALUE(a.dim() == 2, "a must be (R, H); got ", a.sizes());
    check_state(like, u, {hidden}, "u");
    check_state(like, a, {a.size(0), hidden}, "a");
    check_state(like, b, {a.size(0), hidden}, "b");
  }
};

// The elements of a tensor that has been checked; null where it is missing.
template <class T>
const T* read(const Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) : nullptr;
}
template <class T>
T* write(const Tensor& x) { return static_cast<T*>(x.mutable_data_ptr()); }

// The layout and resets must stay alive as long as the problem.
template <class T, class Problem>
void fill_sizes(Problem& s, const Layout& layout, const Weights& weights, Activation activation,
                Activation coupling_activation, int64_t interval, const Tensor& resets) {
  s.steps = layout.steps;
  s.batch = layout.batch;
  s.hidden = layout.hidden;
  s.row_starts = layout.packed() ? layout.row_starts.data() : nullptr;
  s.couplings = static_cast<int>(weights.a.size(0));
  s.interval = interval;
  s.activation = activation;
  s.coupling_activation = coupling_activation;
  s.resets = read<uint8_t>(resets);
  s.u = weights.u.const_data_ptr<T>();
  s.a = weights.a.const_data_ptr<T>();
  s.b = weights.b.const_data_ptr<T>();
}

// The six results of a backward pass, and where a kernel writes them.
struct Gradients {
  Tensor z, h_0, c_0, u, a, b;

  Gradients(const Tensor& out, const Layout& layout, const Weights& weights) {
    const auto like = [&](const Tensor& x) { return allocate(x.sizes(), state_options(out)); };
    z = allocate(out.sizes(), out.options());
    h_0 = allocate({layout.batch, layout.hidden}, state_options(out));
    c_0 = allocate({layout.batch, layout.hidden}, state_options(out));
    u = like(weights.u);
    a = like(weights.a);
    b = like(weights.b);
    if (out.numel() == 0) {
      for (const Tensor& x : {u, a, b}) x.zero_();
    }
  }

  template <class T, class IO>
  void fill(Backward<T, IO>& s) const {
    s.grad_z = write<IO>(z);
    s.grad_h_0 = write<T>(h_0);
    s.grad_c_0 = write<T>(c_0);
    s.grad_u = write<T>(u);
    s.grad_a = write<T>(a);
    s.grad_b = write<T>(b);
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> all() const { return {z, h_0, c_0, u, a, b}; }
};

// Calls fn with a number of the type of the sequence; halves says whether that may be one of 16 bits.
template <bool halves, class Fn>
void for_sequence(const Tensor& like, const Fn& fn) {
  if (like.scalar_type() == at::kFloat) return fn(float{});
  if (like.scalar_type() == at::kDouble) return fn(double{});
  if constexpr (halves) {
    if (like.scalar_type() == at::kBFloat16) return fn(bfloat16{});
    if (like.scalar_type() == at::kHalf) return fn(float16{});
  }
  TORCH_CHECK_VALUE(false, "z must be ", halves ? "float32, float64, bfloat16 or float16" : "float32 or float64",
                    " on ", like.device(), "; got ", like.scalar_type());
}

}  // namespace irevrnn
