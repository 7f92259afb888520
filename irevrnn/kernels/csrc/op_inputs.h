// What the operators check of their inputs: what a kernel that got it wrong would read or write beyond its memory for. The
// Python code that calls them says more.
#pragma once

#include <ATen/core/Tensor.h>

#include <iterator>
#include <optional>
#include <vector>

#include "allocate.h"
#include "scan.h"

namespace irevrnn {

using at::Tensor;
using Maybe = std::optional<Tensor>;
using Name = c10::string_view;

inline Activation parse_activation(Name name) {
  for (size_t i = 0; i < std::size(activation_names); ++i) {
    if (name == activation_names[i]) return static_cast<Activation>(i);
  }
  TORCH_CHECK_VALUE(false, "the compiled kernels have no activation ", name,
                    ": add it to irevrnn/kernels/csrc/activations.h");
}

// x, contiguous, if it has this shape and dtype and is on the device of z.
inline Tensor checked(const Tensor& z, const Tensor& x, at::IntArrayRef sizes, at::ScalarType dtype, const char* name) {
  TORCH_CHECK_VALUE(x.sizes() == sizes && x.scalar_type() == dtype && x.device() == z.device(), name, " must be ", dtype,
                    " of shape ", sizes, " on ", z.device(), "; got ", x.scalar_type(), " of shape ", x.sizes(), " on ",
                    x.device());
  return x.contiguous();
}
inline Tensor checked(const Tensor& z, const Tensor& x, at::IntArrayRef sizes, const char* name) {
  return checked(z, x, sizes, z.scalar_type(), name);
}
// Undefined if it is missing.
inline Tensor checked(const Tensor& z, const Maybe& x, at::IntArrayRef sizes, at::ScalarType dtype, const char* name) {
  return x && x->defined() ? checked(z, *x, sizes, dtype, name) : Tensor();
}

// The elements of a tensor that has been checked; null where it is missing.
template <class T>
const T* read(const Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) : nullptr;
}
template <class T>
T* write(const Tensor& x) { return static_cast<T*>(x.mutable_data_ptr()); }

// x from a number on, contiguous as x is; past the dispatcher, which takes ten times as long.
inline Tensor part_of(const Tensor& x, int64_t first, at::IntArrayRef sizes) {
  const auto part = at::detail::make_tensor<at::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(x.storage()), x.key_set(),
                                                            x.dtype());
  part.unsafeGetTensorImpl()->set_storage_offset(x.storage_offset() + first);
  part.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return part;
}
// x[i], likewise where x is contiguous.
inline Tensor select_first(const Tensor& x, int64_t i) {
  const at::IntArrayRef sizes = x.sizes().slice(1);
  return x.is_contiguous() ? part_of(x, i * c10::multiply_integers(sizes), sizes) : x.select(0, i);
}

// The inputs that all passes share. They must stay alive as long as the problem that they fill.
struct PassInputs {
  int64_t steps, batch, hidden, interval;
  std::vector<int64_t> row_starts;  // of a packed sequence
  std::vector<Tensor> weights;
  std::vector<bool> of_steps;  // whether each of a selective oscillator's has a row for each step
  Tensor resets;
  Activation activation, coupling_activation;

  // z, or out, is (T, B, H); or (N, H), packed with batch_sizes (T,), for states h (B, H). given: the weights u, a and b; or
  // the angles of a selective oscillator and, if it has them, its decays.
  PassInputs(const Tensor& z, const Tensor& h, at::TensorList given, const Maybe& batch_sizes, Name g, Name f,
             int64_t interval, const Maybe& resets_)
      : batch(h.size(0)), hidden(z.size(-1)), interval(interval),
        resets(checked(z, resets_, z.sizes().slice(0, z.dim() - 1), at::kBool, "resets")),
        activation(parse_activation(g)), coupling_activation(parse_activation(f)) {
    if (given.size() == 3) {
      const Tensor& a = given[1];
      weights = {checked(z, given[0], {hidden}, "u"), checked(z, a, {a.size(0), hidden}, "a"),
                 checked(z, given[2], a.sizes(), "b")};
    } else {
      TORCH_CHECK_VALUE(interval != 0, "interval must not be 0 for a selective oscillator");
      for (const Tensor& x : given) {
        of_steps.push_back(x.sizes() == z.sizes());
        weights.push_back(checked(z, x, of_steps.back() ? z.sizes() : h.sizes(), "angle or decay"));
      }
    }
    TORCH_CHECK_VALUE(interval == everything_saved || interval == usual_interval || interval == nothing_saved,
                      "interval must be ", everything_saved, ", ", usual_interval, ", or ", nothing_saved,
                      " if no backward pass follows; got ", interval);
    const bool has_sizes = batch_sizes && batch_sizes->defined();
    if (has_sizes) find_row_starts(batch_sizes->contiguous());
    steps = has_sizes ? batch_sizes->size(0) : z.size(0);
    TORCH_CHECK_VALUE(has_sizes ? z.dim() == 2 && row_starts[steps] == z.size(0) : z.dim() == 3 && z.size(1) == batch,
                      "z must be (T, B, H), or (N, H) with batch_sizes that sum to N; got ", z.sizes());
    TORCH_CHECK_VALUE(steps > 0, "z must have a step");
  }

  bool packed() const { return !row_starts.empty(); }
  bool selective() const { return weights.size() != 3; }
  bool decays() const { return weights.size() == 2; }  // those of both h and c
  int64_t couplings() const { return selective() ? 0 : weights[1].size(0); }

  // ops.saved_shape in Python is the same rule.
  std::vector<int64_t> saved_shape(const Tensor& z) const {
    if (interval == nothing_saved) return {0, batch, hidden};
    if (interval > 0) return {(steps + interval - 1) / interval - 1, batch, hidden};
    if (packed()) return {2 * couplings() * z.size(0), hidden};
    return {steps, 2 * couplings(), batch, hidden};
  }

  template <class T>
  void fill(Sizes<T>& s) const {
    s.steps = steps;
    s.batch = batch;
    s.hidden = hidden;
    s.row_starts = packed() ? row_starts.data() : nullptr;
    s.couplings = static_cast<int>(couplings());
    s.interval = interval;
    s.activation = activation;
    s.coupling_activation = coupling_activation;
    s.resets = read<uint8_t>(resets);
    point<const T>(weights, s.u, s.a, s.b, s.angle, s.decay);
  }

  template <class T>
  void fill_gradients(Backward<T>& s, const std::vector<Tensor>& gradients) const {
    point<T>(gradients, s.grad_u, s.grad_a, s.grad_b, s.grad_angle, s.grad_decay);
  }

 private:
  // Points to the weights of either kind of oscillator, or to their gradients.
  template <class T>
  void point(const std::vector<Tensor>& x, T*& u, T*& a, T*& b, Rows<T>& angle, Rows<T>& decay) const {
    const auto numbers = [&](size_t i) -> T* {
      if constexpr (std::is_const_v<T>) return read<std::remove_const_t<T>>(x[i]);
      else return write<T>(x[i]);
    };
    if (selective()) {
      angle = {numbers(0), of_steps[0]};
      if (decays()) decay = {numbers(1), of_steps[1]};
    } else {
      u = numbers(0);
      a = numbers(1);
      b = numbers(2);
    }
  }

  void find_row_starts(const Tensor& sizes) {
    TORCH_CHECK_VALUE(sizes.dim() == 1 && sizes.scalar_type() == at::kLong && sizes.is_cpu(),
                      "batch_sizes must be (T,) int64 on the CPU; got ", sizes.sizes(), " ", sizes.scalar_type());
    row_starts = {0};
    int64_t most = batch;
    for (int64_t size : at::IntArrayRef(read<int64_t>(sizes), sizes.size(0))) {
      TORCH_CHECK_VALUE(size > 0 && size <= most, "batch_sizes must fall from at most ", batch, " to 1; got ", size);
      row_starts.push_back(row_starts.back() + size);
      most = size;
    }
  }
};

// Calls fn with a number of the type of the sequence.
template <class Fn>
void for_sequence(const Tensor& like, const Fn& fn) {
  if (like.scalar_type() == at::kFloat) return fn(float{});
  if (like.scalar_type() == at::kDouble) return fn(double{});
  TORCH_CHECK_VALUE(false, "z must be float32 or float64 on ", like.device(), "; got ", like.scalar_type());
}

}  // namespace irevrnn
