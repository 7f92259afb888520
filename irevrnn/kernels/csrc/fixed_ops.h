// The operators irevrnn::fixed_scan and irevrnn::fixed_unscan for any device, where every lane has a bit stack of its own.
//
// Launch: as for scan_op.h, and called with LaneForward, FixedInverse and LaneWords. Where it has in_vectors(z, h), passes of
// which that is true run in vectors instead, whose lanes share bit stacks.
#pragma once

#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/max.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "rescaling.h"
#include "scan_op.h"

namespace irevrnn {

// A contiguous copy; on the CPU without operators, as these take longer than so few numbers.
inline Tensor copy_of(const Tensor& x) {
  if (!x.is_cpu() || !x.is_contiguous()) return x.clone(at::MemoryFormat::Contiguous);
  Tensor copy = allocate(x.sizes(), x.options());
  if (x.numel() > 0) memcpy(copy.mutable_data_ptr(), x.const_data_ptr(), x.nbytes());
  return copy;
}

// What each bit stack has, its tail (bit_stack.h) or its place (rescaling.h); none are given before the first pass.
inline Tensor of_stacks(const Tensor& z, const Tensor& numbers, int64_t streams, const char* name) {
  if (numbers.size(0) == 0) return at::ones({streams}, z.options().dtype(at::kLong));
  return checked(z, numbers, streams, at::kLong, name);
}

// One pass: its inputs, checked and made contiguous, the states it moves, and room for its results.
struct FixedTensors {
  PassInputs shared;
  Tensor z, out, saved;
  std::vector<Tensor> states;  // h and c (B, H), the bits of their scales (2, B, H), tails and places of the bit stacks
  int64_t first_step;

  // z: (T, B, H), or (N, H) packed with batch_sizes. steps: of the sequence before the states; streams: the number of bit
  // stacks; inverse: whether the states are those after the pass; in_place: whether the given states move, not copies.
  FixedTensors(const Tensor& z_, at::TensorList given, int64_t steps, int64_t streams, bool inverse,
               at::TensorList weights, Name g, Name f, bool save, const Maybe& resets, const Maybe& batch_sizes,
               bool in_place = false)
      : shared(z_, given[0], weights, batch_sizes, g, f, usual_interval, resets), z(z_.contiguous()),
        out(allocate(z.sizes(), z.options())),
        saved(save ? allocate(shared.saved_shape(z), z.options()) : allocate({0}, z.options())),
        first_step(steps - (inverse ? shared.steps : 0)) {
    TORCH_CHECK_VALUE(invertible(shared.activation), "activation must be invertible in fixed point; got ", g);
    const int64_t batch = shared.batch, hidden = shared.hidden;
    states = {checked(z, given[0], {batch, hidden}, at::kInt, "h"), checked(z, given[1], {batch, hidden}, at::kInt, "c"),
              checked(z, given[2], {2, batch, hidden}, at::kInt, "scales"), of_stacks(z, given[3], streams, "tails"),
              of_stacks(z, given[4], streams, "places")};
    if (!in_place) std::transform(states.begin(), states.end(), states.begin(), copy_of);
    if (shared.packed()) saved.zero_();  // the rows of sequences that have ended
  }

  // Words that the resets of a lane push at most; waits for the device if there are any.
  int64_t most_reset_words() const {
    const Tensor& resets = shared.resets;
    if (!resets.defined() || resets.numel() == 0) return 0;
    if (shared.packed()) return words_of_reset * std::min(shared.steps, resets.sum().item<int64_t>());
    return words_of_reset * resets.sum(0).max().item<int64_t>();
  }

  template <class T>
  void fill(FixedPass<T>& s) const {
    shared.fill<T>(s);
    s.z = read<T>(z);
    s.first_step = first_step;
    s.h = write<int32_t>(states[0]);
    s.c = write<int32_t>(states[1]);
    s.bits_h = write<int32_t>(states[2]);
    s.bits_c = s.bits_h + s.lanes();
    s.tails = write<int64_t>(states[3]);
    s.places = write<int64_t>(states[4]);
    s.out = write<T>(out);
    s.saved = saved.numel() > 0 ? write<T>(saved) : nullptr;
  }
};

// The odd numbers of state_hash: the first, and how much larger the next is.
constexpr uint64_t hash_first = 0x3F58476D1CE4E5B9, hash_step = 0x1E3779B97F4A7C16;

// out, states after the pass, words, counts, saved, bad_step.
using FixedResults = std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor, Tensor, int64_t>;
// out, states before the pass, counts_left, saved.
using FixedInverseResults = std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor>;

// A pass over copies of the states, with room for some changes of scales in each lane; nothing if that did not suffice. The
// host waits for a device once: for the number of words, and the first step out of range.
template <class Launch>
std::optional<FixedResults> scan_lanes(const FixedTensors& x, bool record, int64_t changes, const Launch& launch) {
  const auto options = x.z.options();
  const int64_t lanes = x.shared.batch * x.shared.hidden, reset_rows = record ? x.most_reset_words() : 0;
  const int64_t rows =
      record ? x.shared.steps * most_words(x.shared.activation, x.shared.decays()) + reset_rows + changes * words_of_rescaling : 0;
  const Tensor columns = at::empty({rows, lanes}, options.dtype(at::kInt));
  Tensor counts = at::empty({lanes}, options.dtype(at::kLong));
  Tensor bad_step = at::full({}, -1, options.dtype(at::kLong)), crowded = at::zeros({}, options.dtype(at::kLong));
  for_sequence(x.z, [&](auto zero) {
    LaneForward<decltype(zero)> s;
    x.fill(s);
    s.words = record ? write<uint32_t>(columns) : nullptr;
    s.rows = rows;
    s.reset_rows = reset_rows;
    s.counts = write<int64_t>(counts);
    s.bad_step = write<int64_t>(bad_step);
    s.crowded = write<int64_t>(crowded);
    launch(s);
  });
  const Tensor sizes = at::stack({counts.sum(), bad_step, crowded}).cpu();
  const int64_t* size = read<int64_t>(sizes);
  if (size[2] != 0) return std::nullopt;
  const bool kept = record && size[1] < 0;
  Tensor words = at::empty({kept ? size[0] : 0}, options.dtype(at::kInt));
  if (!kept) {
    return FixedResults(x.out, x.states, words, at::empty({0}, counts.options()), x.saved, size[1]);
  }
  const Tensor starts = counts.cumsum(0).sub_(counts);
  launch(LaneWords{lanes, read<uint32_t>(columns),
                   read<int64_t>(starts), read<int64_t>(counts),
                   write<uint32_t>(words)});
  return FixedResults(x.out, x.states, words, counts, x.saved, size[1]);
}

// Whether a pass over states, of which h is the first, runs in vectors; and how many bit stacks it has.
struct Streams {
  bool in_vectors;
  int64_t count;

  template <class Launch>
  Streams(const Launch& launch, const Tensor& z, at::TensorList states) : in_vectors(false) {
    TORCH_CHECK_VALUE(states.size() == 5, "states must be h, c, scales, tails and places; got ", states.size(), " tensors");
    count = states[0].numel();
    if constexpr (requires { launch.in_vectors(z, states[0]); }) {
      in_vectors = launch.in_vectors(z, states[0]);
      if (in_vectors) count = vector_streams(count);
    }
  }
};

template <class Launch>
FixedResults fixed_scan_op(const Tensor& z, at::TensorList states, int64_t steps, at::TensorList weights, Name activation,
                           Name coupling_activation, bool record, bool save, bool vectorize, const Maybe& resets,
                           const Maybe& batch_sizes) {
  const Launch launch(z, vectorize);
  const Streams streams(launch, z, states);
  for (int64_t changes = 8;; changes *= 8) {
    const FixedTensors x(z, states, steps, streams.count, false, weights, activation, coupling_activation, save, resets,
                         batch_sizes);
    if constexpr (requires { launch.scan_in_vectors(x, record); }) {
      if (streams.in_vectors) return launch.scan_in_vectors(x, record);
    }
    if (auto results = scan_lanes(x, record, changes, launch)) return *results;
  }
}

template <class Launch>
FixedInverseResults fixed_unscan_op(const Tensor& z, at::TensorList states, int64_t steps, const Tensor& words,
                                    const Tensor& starts, const Tensor& counts, at::TensorList weights, Name activation,
                                    Name coupling_activation, bool vectorize, const Maybe& resets, const Maybe& batch_sizes) {
  const Launch launch(z, vectorize);
  const Streams streams(launch, z, states);
  const FixedTensors x(z, states, steps, streams.count, true, weights, activation, coupling_activation, true, resets,
                       batch_sizes);
  const Tensor all_words = checked(z, words, words.numel(), at::kInt, "words");
  const Tensor first_words = checked(z, starts, streams.count, at::kLong, "starts");
  const Tensor counts_left = copy_of(checked(z, counts, streams.count, at::kLong, "counts"));
  for_sequence(z, [&](auto zero) {
    FixedInverse<decltype(zero)> s;
    x.fill(s);
    s.words = read<uint32_t>(all_words);
    s.words_size = all_words.numel();
    s.streams = streams.count;
    s.starts = read<int64_t>(first_words);
    s.counts = write<int64_t>(counts_left);
    if constexpr (requires { launch.unscan_in_vectors(s); }) {
      if (streams.in_vectors) return launch.unscan_in_vectors(s);
    }
    launch(s);
  });
  return {x.out, x.states, counts_left, x.saved};
}

}  // namespace irevrnn
