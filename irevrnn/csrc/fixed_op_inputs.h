// The checks of the fixed-point operators' inputs, and their results, on any device.
#pragma once

#include <ATen/ops/max.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "bit_stack.h"
#include "fixed_scan.h"
#include "scan_op.h"

namespace irevrnn {

// A contiguous copy; on the CPU without operators, as these take longer than so few numbers.
inline Tensor copy_of(const Tensor& x) {
  if (!x.is_cpu() || !x.is_contiguous()) return x.clone(at::MemoryFormat::Contiguous);
  Tensor copy = at::empty(x.sizes(), x.options());
  if (x.numel() > 0) memcpy(copy.mutable_data_ptr(), x.const_data_ptr(), x.nbytes());
  return copy;
}

// A copy of states that a kernel brings from one end of the sequence to the other.
inline Tensor moving_states(const Tensor& z, const Tensor& x, at::IntArrayRef sizes, at::ScalarType dtype,
                            const char* name) {
  check_shape(x, sizes, name);
  TORCH_CHECK_VALUE(x.scalar_type() == dtype && x.device() == z.device(), name, " must be ", dtype,
                    " on the device of z; got ", x.scalar_type(), " on ", x.device());
  return copy_of(x);
}

// What each bit stack has, its tail (bit_stack.h) or its place (rescaling.h); none are given before the first pass.
inline Tensor of_stacks(const Tensor& z, const Tensor& numbers, int64_t streams, const char* name) {
  if (numbers.size(0) == 0) return at::ones({streams}, z.options().dtype(at::kLong));
  return moving_states(z, numbers, streams, at::kLong, name);
}

// The states at one end of a pass: h and c, the bits of their scales (2, B, H), tails and places of the bit stacks.
struct FixedStates {
  Tensor h, c, scales, tails, places;

  explicit FixedStates(at::TensorList all) {
    TORCH_CHECK_VALUE(all.size() == 5, "states must be h, c, scales, tails and places; got ", all.size(), " tensors");
    h = all[0], c = all[1], scales = all[2], tails = all[3], places = all[4];
  }
  std::vector<Tensor> all() const { return {h, c, scales, tails, places}; }
};

// One pass: its inputs, checked and made contiguous, the states it moves, and room for its results.
struct FixedTensors {
  Layout layout;
  Weights weights;
  FixedStates states;
  Tensor z, resets, out, saved;
  Activation activation, coupling_activation;
  int64_t first_step;

  // z: (T, B, H), or (N, H) packed with batch_sizes. steps: of the sequence before the states; streams: the number of bit
  // stacks; inverse: whether the states are those after the pass.
  FixedTensors(const Tensor& z_, const FixedStates& states_, int64_t steps, int64_t streams, bool inverse, const Tensor& u,
               const Tensor& a, const Tensor& b, c10::string_view g, c10::string_view f, bool save,
               const std::optional<Tensor>& resets_, const std::optional<Tensor>& batch_sizes)
      : layout(Layout::of(z_, states_.h, batch_sizes)), weights(z_, u, a, b), states(states_), z(z_.contiguous()),
        resets(given_resets(resets_, z_)),
        out(allocate(z.sizes(), z.options())),
        saved(save ? allocate(saved_shape(z, layout, a.size(0), usual_interval), z.options()) : allocate({0}, z.options())),
        activation(parse_invertible(g)), coupling_activation(parse_activation(f, "coupling_activation")),
        first_step(steps - (inverse ? layout.steps : 0)) {
    const std::array<int64_t, 2> sizes{layout.batch, layout.hidden};
    states.h = moving_states(z, states_.h, sizes, at::kInt, "h");
    states.c = moving_states(z, states_.c, sizes, at::kInt, "c");
    states.scales = moving_states(z, states_.scales, {2, sizes[0], sizes[1]}, at::kInt, "scales");
    states.tails = of_stacks(z, states_.tails, streams, "tails");
    states.places = of_stacks(z, states_.places, streams, "places");
    if (layout.packed()) saved.zero_();  // the rows of sequences that have ended
  }

  static Activation parse_invertible(c10::string_view name) {
    const Activation g = parse_activation(name, "activation");
    TORCH_CHECK_VALUE(invertible(g), "activation must be invertible in fixed point; got ", name);
    return g;
  }

  // Words that the resets of a lane push at most; waits for the device if there are any.
  int64_t most_reset_words() const {
    if (!resets.defined() || resets.numel() == 0) return 0;
    if (layout.packed()) return words_of_reset * std::min(layout.steps, resets.sum().item<int64_t>());
    return words_of_reset * resets.sum(0).max().item<int64_t>();
  }

  template <class T>
  void fill(FixedPass<T>& s) const {
    fill_sizes<T>(s, layout, weights, activation, coupling_activation, usual_interval, resets);
    s.z = z.const_data_ptr<T>();
    s.first_step = first_step;
    s.h = states.h.mutable_data_ptr<int32_t>();
    s.c = states.c.mutable_data_ptr<int32_t>();
    s.bits_h = states.scales.mutable_data_ptr<int32_t>();
    s.bits_c = s.bits_h + s.lanes();
    s.tails = states.tails.mutable_data_ptr<int64_t>();
    s.places = states.places.mutable_data_ptr<int64_t>();
    s.out = out.mutable_data_ptr<T>();
    s.saved = saved.numel() > 0 ? saved.mutable_data_ptr<T>() : nullptr;
  }
};

// The words of all bit stacks one after the other, where each stack begins, and how many words it has left.
struct FixedWords {
  Tensor words, starts, counts;

  FixedWords(const Tensor& z, const Tensor& words, const Tensor& starts, const Tensor& counts)
      : words(words.contiguous()), starts(starts.contiguous()),
        counts(copy_of(counts)) {
    TORCH_CHECK_VALUE(words.scalar_type() == at::kInt && words.dim() == 1, "words must be (N,) int32");
    TORCH_CHECK_VALUE(starts.scalar_type() == at::kLong && counts.scalar_type() == at::kLong &&
                          starts.dim() == 1 && counts.sizes() == starts.sizes(),
                      "starts and counts must be int64 of one shape");
    TORCH_CHECK_VALUE(words.device() == z.device() && starts.device() == z.device() &&
                          counts.device() == z.device(),
                      "words, starts and counts must be on the device of z, ", z.device());
  }

  template <class T>
  void fill(FixedInverse<T>& s) const {
    s.words = reinterpret_cast<const uint32_t*>(words.const_data_ptr<int32_t>());
    s.words_size = words.size(0);
    s.streams = counts.size(0);
    s.starts = starts.const_data_ptr<int64_t>();
    s.counts = counts.mutable_data_ptr<int64_t>();
  }
};

// The odd numbers of state_hash: the first, and how much larger the next is.
constexpr uint64_t hash_first = 0x3F58476D1CE4E5B9, hash_step = 0x1E3779B97F4A7C16;

inline void check_hashed(at::TensorList states) {
  TORCH_CHECK_VALUE(!states.empty(), "states must not be empty");
  for (const Tensor& x : states) {
    TORCH_CHECK_VALUE(x.scalar_type() == at::kInt || x.scalar_type() == at::kLong, "states must be int32 or int64; got ",
                      x.scalar_type());
  }
}

// out, states after the pass, words, counts, saved, bad_step.
using FixedResults = std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor, Tensor, int64_t>;
// out, states before the pass, counts_left, saved.
using FixedInverseResults = std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor>;

inline FixedResults results_of(const FixedTensors& x, const Tensor& words, const Tensor& counts,
                               int64_t bad_step) {
  return {x.out, x.states.all(), words, counts, x.saved, bad_step};
}

inline FixedInverseResults results_of(const FixedTensors& x, const FixedWords& buffer) {
  return {x.out, x.states.all(), buffer.counts, x.saved};
}

}  // namespace irevrnn
