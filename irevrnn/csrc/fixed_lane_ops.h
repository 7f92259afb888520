// The fixed-point operators where every lane has a bit stack of its own, on any device.
//
// Kernels: how work is run, which is called with LaneForward, FixedInverse and LaneWords.
#pragma once

#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "fixed_op_inputs.h"
#include "rescaling.h"

namespace irevrnn {

// A pass over copies of the states, with room for some changes of scales in each lane; nothing if that did not suffice.
//
// The size of the words depends on the data: the host reads it, and the first step out of range, which is
// the one time that it waits for a device.
template <class Kernels>
std::optional<FixedResults> scan_lanes(const FixedTensors& x, bool record, int64_t changes, const Kernels& run) {
  const auto options = x.z.options();
  const int64_t lanes = x.layout.batch * x.layout.hidden, reset_rows = record ? x.most_reset_words() : 0;
  const int64_t rows =
      record ? x.layout.steps * most_words(x.activation) + reset_rows + changes * words_of_rescaling : 0;
  const Tensor columns = at::empty({rows, lanes}, options.dtype(at::kInt));
  Tensor counts = at::empty({lanes}, options.dtype(at::kLong));
  Tensor bad_step = at::full({}, -1, options.dtype(at::kLong)), crowded = at::zeros({}, options.dtype(at::kLong));
  for_sequence<false>(x.z, [&](auto zero) {
    LaneForward<decltype(zero)> s;
    x.fill(s);
    s.words = record ? reinterpret_cast<uint32_t*>(columns.mutable_data_ptr<int32_t>()) : nullptr;
    s.rows = rows;
    s.reset_rows = reset_rows;
    s.counts = counts.mutable_data_ptr<int64_t>();
    s.bad_step = bad_step.mutable_data_ptr<int64_t>();
    s.crowded = crowded.mutable_data_ptr<int64_t>();
    run(s);
  });
  const Tensor sizes = at::stack({counts.sum(), bad_step, crowded}).cpu();
  const int64_t* size = sizes.const_data_ptr<int64_t>();
  if (size[2] != 0) return std::nullopt;
  const bool kept = record && size[1] < 0;
  Tensor words = at::empty({kept ? size[0] : 0}, options.dtype(at::kInt));
  if (!kept) return results_of(x, words, at::empty({0}, counts.options()), size[1]);
  const Tensor starts = counts.cumsum(0).sub_(counts);
  run(LaneWords{lanes, reinterpret_cast<const uint32_t*>(columns.const_data_ptr<int32_t>()),
                starts.const_data_ptr<int64_t>(), counts.const_data_ptr<int64_t>(),
                reinterpret_cast<uint32_t*>(words.mutable_data_ptr<int32_t>())});
  return results_of(x, words, counts, size[1]);
}

// inputs(): new FixedTensors.
template <class Inputs, class Kernels>
FixedResults scan_lanes(const Inputs& inputs, bool record, const Kernels& run) {
  for (int64_t changes = 8;; changes *= 8) {
    if (auto results = scan_lanes(inputs(), record, changes, run)) return *results;
  }
}

template <class Kernels>
FixedInverseResults unscan_lanes(const FixedTensors& x, const FixedWords& buffer, const Kernels& run) {
  const int64_t lanes = x.layout.batch * x.layout.hidden;
  TORCH_CHECK_VALUE(buffer.counts.size(0) == lanes, "counts must have ", lanes, " entries; got ",
                    buffer.counts.size(0));
  for_sequence<false>(x.z, [&](auto zero) {
    FixedInverse<decltype(zero)> s;
    x.fill(s);
    buffer.fill(s);
    run(s);
  });
  return results_of(x, buffer);
}

}  // namespace irevrnn
