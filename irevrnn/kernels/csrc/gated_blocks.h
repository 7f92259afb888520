// Gated blocks on top of each other, made ready for operators: torch.classes.irevrnn.GatedBlocks.
#pragma once

#include <torch/custom_class.h>

#include "block_input.h"

namespace irevrnn {
namespace {

using MaybeList = c10::List<std::optional<Tensor>>;

struct GatedBlock {
  Inner inner;
  std::vector<Tensor> recurrent;  // u, a, b; of a selective oscillator u alone, which may be missing
  Outer outer;
  bool selective() const { return inner.angle.defined(); }
};

// The blocks, all of one form, and what is the same for all of them.
struct GatedBlocks : torch::CustomClassHolder {
  // Of a block: weight and bias of its norm; weight, scaled bias and scale of its input projection; u, a, b; weight and bias of
  // its output projection; of a selective oscillator the angle; weights and biases of the gates for z, angle and decay. There
  // are sums of the gradients of all but the scale: weight, too, is taken as scaled there.
  static constexpr size_t of_parameters = 17, of_sums = 16;
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
      const std::array<Projected, Inner::kinds> projections{{{p(2), p(3)}, {p(11), p(12)}, {p(13), p(14)}, {p(15), p(16)}}};
      const Inner inner{p(0), p(1), p(4), static_cast<float>(eps[i]), p(10), projections};
      blocks.push_back({inner, {p(5), p(6), p(7)}, {p(8), p(9), residual}});
    }
  }

  int64_t count() const { return static_cast<int64_t>(blocks.size()); }
  const Inner& inner(int64_t i) const { return blocks[i].inner; }
  const Outer& outer(int64_t i) const { return blocks[i].outer; }
  bool selective() const { return blocks[0].selective(); }
  // What the recurrence of a block takes beside z: u, a and b; or angles and, where it forgets, decays, of each row or sequence.
  size_t count_weights() const {
    const GatedBlock& first = blocks[0];
    if (!first.selective()) return 3;
    return first.inner.has(Inner::to_keep) || first.recurrent[0].defined() ? 2 : 1;
  }
  std::vector<Tensor> weights(int64_t i, const Drive& drive, int64_t batch) const {
    const GatedBlock& block = blocks[i];
    if (!block.selective()) return block.recurrent;
    const auto chosen = [&](const Tensor& rows, const Tensor& same) {
      return rows.defined() ? rows : same.unsqueeze(0).expand({batch, same.size(0)});
    };
    std::vector<Tensor> found{chosen(drive.angle, block.inner.angle)};
    if (count_weights() == 2) found.push_back(chosen(drive.decay, block.recurrent[0]));
    return found;
  }
  // The rows of which a block has to return something.
  Tensor shown(const Tensor& x, int64_t i) const {
    return last && i + 1 == count() ? x.narrow(0, x.size(0) - 1, 1) : x;
  }
};
using BlocksPointer = c10::intrusive_ptr<GatedBlocks>;

// Which rows of a chunk belong to which step of which sequence: batch_sizes and resets, as for scan.
struct StepLayout {
  Maybe resets, batch_sizes;
  PassInputs pass(const GatedBlocks& blocks, const Tensor& z, const Tensor& h, const std::vector<Tensor>& weights,
                  int64_t interval) const {
    return PassInputs(z, h, weights, batch_sizes, blocks.activation, blocks.coupling_activation, interval, resets);
  }
};

}  // namespace
}  // namespace irevrnn
