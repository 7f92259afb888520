// A single step through gated blocks, for streams.
#pragma once

#include "gated_blocks.h"

namespace irevrnn {
namespace {

// to = bias + x weight^T. A weight is turned only if there are many rows.
void project(int64_t rows, const Tensor& weight, const float* bias, const float* x, float* turned, float* to) {
  constexpr int64_t few = 8;
  const int64_t out = weight.size(0), in = weight.size(1);
  if (rows < few) return multiply_few_rows_vector(rows, out, in, x, read<float>(weight), bias, to);
  transpose_vector(out, in, read<float>(weight), nullptr, turned);
  multiply_vector({rows, out, in, x, in, 1, turned, bias, 0, to}, 0, rows);
}

// A single step without a gradient: y, h and c after it. x is (B, in), h_0 and c_0 (L, B, H). Here the bias of an input
// projection is without its scale: all parameters are those of the modules, so that a change of one is seen.
std::tuple<Tensor, Tensor, Tensor> step_blocks(const BlocksPointer& pointer, const Tensor& x_, const Tensor& h_0_,
                                               const Tensor& c_0_) {
  at::AutoDispatchBelowADInplaceOrView no_graph;
  const FlushDenormals flush;
  const GatedBlocks& blocks = *pointer;
  const int64_t rows = x_.size(0), hidden = blocks.inner(0).hidden(), width = blocks.inner(0).features();
  const Tensor x = checked(x_, x_, {rows, width}, at::kFloat, "x");
  const Tensor h_0 = checked(x, h_0_, {blocks.count(), rows, hidden}, "h"), c_0 = checked(x, c_0_, h_0.sizes(), "c");
  const Tensor y = allocate(x.sizes(), x.options()), h = allocate(h_0.sizes(), x.options());
  const Tensor c = allocate(h_0.sizes(), x.options());
  const int64_t wide = rows * std::max(width, hidden);
  const Scratch turned(2 * width * hidden), one(2 * wide), other(2 * wide), moments(2 * rows), gates(3 * rows * hidden);
  Forward<float> s{};
  s.steps = 1;
  s.batch = rows;
  s.hidden = hidden;
  s.interval = nothing_saved;
  s.activation = parse_activation(blocks.activation);
  s.coupling_activation = parse_activation(blocks.coupling_activation);
  const float* from = read<float>(x);
  for (int64_t i = 0; i < blocks.count(); ++i) {
    const Inner& inner = blocks.inner(i);
    const Outer& outer = blocks.outer(i);
    const float* normed = from;
    if (inner.norms()) {
      layer_norm_vector({width, from, read<float>(inner.norm_weight), read<float>(inner.norm_bias), inner.eps, one, moments},
                        0, rows);
      normed = one;
    }
    Inner::Rows to{other};
    for (int kind = Inner::to_z; kind < Inner::kinds; ++kind) {
      if (!inner.has(kind)) continue;
      if (kind != Inner::to_z) to[kind] = gates + (kind - 1) * rows * hidden;
      project(rows, inner.weight(kind), read<float>(inner.projections[kind].bias), normed, turned, to[kind]);
    }
    multiply_rows_vector(hidden, other, read<float>(inner.scale), other, 0, rows);
    if (inner.chooses()) {
      const float* angle = read<float>(inner.angle);
      choose_vector({hidden, other, to[Inner::to_read], angle, to[Inner::to_turn], to[Inner::to_keep]}, 0, rows);
    }
    const std::vector<Tensor>& recurrent = blocks.blocks[i].recurrent;
    const int64_t at = i * rows * hidden;
    if (blocks.selective()) {  // of each sequence
      const auto chosen = [&](int kind, const Tensor& same) -> ::irevrnn::Rows<const float> {
        float* const own = gates + (kind - 1) * rows * hidden;
        for (int64_t row = 0; row < rows && !to[kind]; ++row) std::copy_n(read<float>(same), hidden, own + row * hidden);
        return {own, false};
      };
      s.angle = chosen(Inner::to_turn, inner.angle);
      if (blocks.count_weights() == 2) s.decay = chosen(Inner::to_keep, recurrent[0]);
    } else {
      s.couplings = static_cast<int>(recurrent[1].size(0));
      s.u = read<float>(recurrent[0]);
      s.a = read<float>(recurrent[1]);
      s.b = read<float>(recurrent[2]);
    }
    s.h_0 = read<float>(h_0) + at;
    s.c_0 = read<float>(c_0) + at;
    s.z = other;
    s.out = one;
    s.h_n = write<float>(h) + at;
    s.c_n = write<float>(c) + at;
    scan_vector(s);
    gelu_vector(s.h_n, one, 0, rows * hidden);
    project(rows, outer.weight, nullptr, one, turned, other);
    gate_vector(width, other, read<float>(outer.bias), blocks.residual ? from : nullptr, write<float>(y), 0, rows);
    from = read<float>(y);
  }
  return {y, h, c};
}

}  // namespace
}  // namespace irevrnn
