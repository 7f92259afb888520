// The checks of the fixed-point operators' inputs, and their results, on any device.
#pragma once

#include <ATen/ops/max.h>
#include <ATen/ops/sum.h>

#include "bit_stack.h"
#include "fixed_scan.h"
#include "op_inputs.h"

namespace irevrnn {

// Copies of states that a kernel brings from one end of the sequence to the other.
struct LongStates {
  Tensor h, c, s;

  LongStates(const Tensor& z, const Tensor& h, const Tensor& c, const Tensor& s)
      : h(copy(z, h, "h")), c(copy(z, c, "c")), s(copy(z, s, "s")) {}

  static Tensor copy(const Tensor& z, const Tensor& x, const char* name) {
    check_shape(x, z.sizes().slice(1), name);
    TORCH_CHECK_VALUE(x.scalar_type() == at::kLong && x.device() == z.device(), name,
                      " must be int64 on the device of z; got ", x.scalar_type(), " on ", x.device());
    return x.clone(at::MemoryFormat::Contiguous);
  }
  States<int64_t> data() const {
    return {h.mutable_data_ptr<int64_t>(), c.mutable_data_ptr<int64_t>(), s.mutable_data_ptr<int64_t>()};
  }
};

// One pass: its inputs, checked and made contiguous, the states it moves, and room for its results.
struct FixedTensors {
  Layout layout;
  Weights weights;
  LongStates states;
  Tensor z, resets, out, values;
  Activation activation, coupling_activation;

  FixedTensors(const Tensor& z_, const Tensor& h, const Tensor& c, const Tensor& s, const Tensor& u,
               const Tensor& a, const Tensor& b, c10::string_view g, c10::string_view f, bool save,
               const std::optional<Tensor>& resets_)
      : layout(z_), weights(z_, u, a, b), states(z_, h, c, s), z(z_.contiguous()),
        resets(given_resets(resets_, z_)),
        out(allocate(z.sizes(), z.options())),
        values(save ? allocate({z.size(0), 2 * a.size(0), z.size(1), z.size(2)}, z.options())
                    : allocate({0}, z.options())),
        activation(parse_invertible(g)), coupling_activation(parse_activation(f)) {}

  static Activation parse_invertible(c10::string_view name) {
    const Activation g = parse_activation(name);
    TORCH_CHECK_VALUE(invertible(g), "activation must be invertible in fixed point; got ", name);
    return g;
  }

  // Words that the resets of a lane push at most; waits for the device if there are any.
  int64_t most_reset_words() const {
    if (!resets.defined() || resets.numel() == 0) return 0;
    return words_of_reset * resets.sum(0).max().item<int64_t>();
  }

  template <class T>
  void fill(FixedPass<T>& s) const {
    s.steps = layout.steps;
    s.batch = layout.batch;
    s.hidden = layout.hidden;
    s.couplings = static_cast<int>(weights.a.size(0));
    s.interval = 0;
    s.activation = activation;
    s.coupling_activation = coupling_activation;
    s.u = weights.u.const_data_ptr<T>();
    s.a = weights.a.const_data_ptr<T>();
    s.b = weights.b.const_data_ptr<T>();
    s.resets = read<uint8_t>(resets);
    s.z = z.const_data_ptr<T>();
    s.states = states.data();
    s.out = out.mutable_data_ptr<T>();
    s.values = values.numel() > 0 ? values.mutable_data_ptr<T>() : nullptr;
  }
};

// The words of all bit stacks one after the other, where each stack begins, and how many words it has left.
struct FixedWords {
  Tensor words, starts, counts;

  FixedWords(const Tensor& z, const Tensor& words, const Tensor& starts, const Tensor& counts)
      : words(words.contiguous()), starts(starts.contiguous()),
        counts(counts.clone(at::MemoryFormat::Contiguous)) {
    TORCH_CHECK_VALUE(words.scalar_type() == at::kShort && words.dim() == 1, "words must be (N,) int16");
    TORCH_CHECK_VALUE(starts.scalar_type() == at::kLong && counts.scalar_type() == at::kLong &&
                          starts.dim() == 1 && counts.sizes() == starts.sizes(),
                      "starts and counts must be int64 of one shape");
    TORCH_CHECK_VALUE(words.device() == z.device() && starts.device() == z.device() &&
                          counts.device() == z.device(),
                      "words, starts and counts must be on the device of z, ", z.device());
  }

  template <class T>
  void fill(FixedInverse<T>& s) const {
    s.words = reinterpret_cast<const uint16_t*>(words.const_data_ptr<int16_t>());
    s.words_size = words.size(0);
    s.streams = counts.size(0);
    s.starts = starts.const_data_ptr<int64_t>();
    s.counts = counts.mutable_data_ptr<int64_t>();
  }
};

// out, h_n, c_n, s_n, words, counts, values, bad_step.
using FixedResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
// out, h_0, c_0, s_0, counts_left, values.
using FixedInverseResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

inline FixedResults results_of(const FixedTensors& x, const Tensor& words, const Tensor& counts,
                               const Tensor& bad_step) {
  return {x.out, x.states.h, x.states.c, x.states.s, words, counts, x.values, bad_step};
}

inline FixedInverseResults results_of(const FixedTensors& x, const FixedWords& buffer) {
  return {x.out, x.states.h, x.states.c, x.states.s, buffer.counts, x.values};
}

}  // namespace irevrnn
