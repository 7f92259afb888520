// Gated blocks on top of each other, made ready for operators: torch.classes.irevrnn.GatedBlocks.
#pragma once

#include <torch/custom_class.h>

#include "block_parts.h"

namespace irevrnn {
namespace {

using MaybeList = c10::List<std::optional<Tensor>>;

struct GatedBlock {
  Inner inner;
  std::vector<Tensor> recurrent;  // u, a, b
  Outer outer;
};

// The blocks, all of one form, and what is the same for all of them.
struct GatedBlocks : torch::CustomClassHolder {
  // Of a block: weight and bias of its norm; weight, scaled bias and scale of its input projection; u, a, b; weight and bias of
  // its output projection. There are sums of the gradients of all but the scale: weight, too, is taken as scaled there.
  static constexpr size_t of_parameters = 10, of_sums = 9;
  static constexpr size_t recurrent_sums = 4, outer_sums = 7;

  std::vector<GatedBlock> blocks;
  bool residual, last;  // last: whether the block on top returns the last step alone
  std::string activation, coupling_activation;
  std::vector<Tensor> sums;  // to which gradients are added; none if there is no backward pass

  // eps: of the norm of each block, below 0 without one.
  GatedBlocks(const MaybeList& parameters, const std::vector<double>& eps, bool residual, bool last, std::string g,
              std::string f, std::vector<Tensor> sums)
      : residual(residual), last(last), activation(std::move(g)), coupling_activation(std::move(f)), sums(std::move(sums)) {
    TORCH_CHECK_VALUE(parameters.size() == of_parameters * eps.size(), "each block must have ", of_parameters,
                      " parameters; got ", parameters.size());
    for (size_t i = 0; i < eps.size(); ++i) {
      const auto p = [&](size_t j) { return parameters.get(i * of_parameters + j).value_or(Tensor()); };
      blocks.push_back({{p(0), p(1), p(2), p(3), p(4), static_cast<float>(eps[i])}, {p(5), p(6), p(7)}, {p(8), p(9), residual}});
    }
  }

  int64_t count() const { return static_cast<int64_t>(blocks.size()); }
  const Inner& inner(int64_t i) const { return blocks[i].inner; }
  const Outer& outer(int64_t i) const { return blocks[i].outer; }
  const std::vector<Tensor>& recurrent(int64_t i) const { return blocks[i].recurrent; }
  // The rows of which a block has to return something.
  Tensor shown(const Tensor& x, int64_t i) const {
    return last && i + 1 == count() ? x.narrow(0, x.size(0) - 1, 1) : x;
  }
};
using BlocksPointer = c10::intrusive_ptr<GatedBlocks>;

// Which rows of a chunk belong to which step of which sequence: batch_sizes and resets, as for scan.
struct StepLayout {
  Maybe resets, batch_sizes;
  PassInputs pass(const GatedBlocks& blocks, int64_t i, const Tensor& z, const Tensor& h, int64_t interval) const {
    return PassInputs(z, h, blocks.recurrent(i), batch_sizes, blocks.activation, blocks.coupling_activation, interval, resets);
  }
};

}  // namespace
}  // namespace irevrnn
