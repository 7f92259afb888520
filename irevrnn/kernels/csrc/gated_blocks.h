// Gated blocks on top of each other, as operators take them.
#pragma once

#include "block_parts.h"

namespace irevrnn {
namespace {

using MaybeList = c10::List<std::optional<Tensor>>;

// The blocks, all of one form, and what is the same for all of them.
struct Blocks {
  // Of a block: weight and bias of its norm; weight, scaled bias and scale of its input projection; u, a, b; weight and bias of
  // its output projection. There are sums of the gradients of all but the scale: weight, too, is taken as scaled there.
  static constexpr size_t parameters = 10, sums = 9;
  static constexpr size_t recurrent_sums = 4, outer_sums = 7;

  MaybeList given;
  std::vector<double> eps;
  bool residual, last;  // last: whether the block on top returns the last step alone
  std::string activation, coupling_activation;
  Maybe resets, batch_sizes;

  Blocks(const MaybeList& given, at::ArrayRef<double> eps, bool residual, bool last, Name g, Name f, const Maybe& resets,
         const Maybe& batch_sizes)
      : given(given), eps(eps.vec()), residual(residual), last(last), activation(g), coupling_activation(f), resets(resets),
        batch_sizes(batch_sizes) {
    TORCH_CHECK_VALUE(given.size() == parameters * eps.size(), "each block must have ", parameters, " parameters; got ",
                      given.size());
  }

  int64_t count() const { return static_cast<int64_t>(eps.size()); }
  Tensor parameter(int64_t block, size_t i) const { return given.get(block * parameters + i).value_or(Tensor()); }
  Inner inner(int64_t i) const {
    return {parameter(i, 0), parameter(i, 1), parameter(i, 2), parameter(i, 3), parameter(i, 4),
            static_cast<float>(eps[i])};
  }
  std::vector<Tensor> recurrent(int64_t i) const { return {parameter(i, 5), parameter(i, 6), parameter(i, 7)}; }
  Outer outer(int64_t i) const { return {parameter(i, 8), parameter(i, 9), residual}; }
  PassInputs pass(const Tensor& z, const Tensor& h, int64_t i, int64_t interval) const {
    return PassInputs(z, h, recurrent(i), batch_sizes, activation, coupling_activation, interval, resets);
  }
  // The rows of which a block has to return something.
  Tensor shown(const Tensor& x, int64_t i) const {
    return last && i + 1 == count() ? x.narrow(0, x.size(0) - 1, 1) : x;
  }
};

}  // namespace
}  // namespace irevrnn
