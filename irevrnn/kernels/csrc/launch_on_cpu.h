// How the operators run on the CPU: on several threads, and in vectors where those are wanted.
#pragma once

#include "fixed_ops.h"

namespace irevrnn {
namespace {

// The words of all stacks one after the other, and the number of words of each.
std::tuple<Tensor, Tensor> pack_words(const std::vector<std::vector<uint32_t>>& stacks) {
  int64_t total = 0;
  for (const auto& stack : stacks) total += stack.size();
  Tensor words = allocate({total}, at::kInt);
  Tensor counts = allocate({static_cast<int64_t>(stacks.size())}, at::kLong);
  auto* to = write<uint32_t>(words);
  int64_t* count = counts.mutable_data_ptr<int64_t>();
  for (const auto& stack : stacks) {
    to = std::copy(stack.begin(), stack.end(), to);
    *count++ = stack.size();
  }
  return {words, counts};
}

// The vectorised kernels are for float alone.
struct LaunchOnCpu {
  LaunchOnCpu(const Tensor&, bool vectorize) : vectorize(vectorize) {}
  template <class Problem>
  void operator()(const Problem& s) const {
    if constexpr (requires { scan_vector(s); }) {
      if (vectorize) return scan_vector(s);
    }
    scan_threads(s);
  }
  bool in_vectors(const Tensor& z, const Tensor& h) const {
    return vectorize && z.scalar_type() == at::kFloat && h.numel() > 0;
  }
  FixedResults scan_in_vectors(const FixedTensors& x, bool record) const {
    FixedForward<float> s;
    x.fill(s);
    s.record = record;
    fixed_scan_vector(s);
    const auto [words, counts] = pack_words(s.words);
    return {x.out, x.states, words, counts, x.saved, s.bad_step};
  }
  void unscan_in_vectors(FixedInverse<float>& s) const { fixed_scan_vector(s); }
  bool vectorize;
};

}  // namespace
}  // namespace irevrnn
