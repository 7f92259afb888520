// What a gated block computes in front of its recurrence, with its gradient: z = weight norm(x) + bias, and what the input
// chooses by projections of norm(x), how much of z is read, angles and decays (gate.h).
#pragma once

#include <algorithm>
#include <array>

#include "block_parts.h"

namespace irevrnn {
namespace {

struct Projected {
  Tensor weight, bias;
};

// What drives a recurrence, of each row: z, and the angles and decays that the input chooses, undefined where it chooses none.
struct Drive {
  Tensor z, angle, decay;
};

// Scale is gamma, which the bias of z has been multiplied by. Without a norm, eps is below 0.
struct Inner {
  enum Projection { to_z, to_read, to_turn, to_keep, kinds };
  // The places of the sums of gradients: those of a projection's weight and, behind it, bias.
  static constexpr size_t angle_sum = 9;
  static constexpr std::array<size_t, kinds> sums_of{2, 10, 12, 14};
  using Rows = std::array<float*, kinds>;

  Tensor norm_weight, norm_bias, scale;
  float eps;
  Tensor angle;  // of a selective oscillator
  std::array<Projected, kinds> projections;  // those of gates have no weight where there is no such gate

  const Tensor& weight(int kind) const { return projections[kind].weight; }
  bool has(int kind) const { return weight(kind).defined(); }
  int64_t features() const { return weight(to_z).size(1); }
  int64_t hidden() const { return weight(to_z).size(0); }
  bool norms() const { return eps >= 0; }
  bool chooses() const { return has(to_read) || has(to_turn) || has(to_keep); }

  Drive drive(const Tensor& x_) const {
    const Tensor x = plain(x_);
    const auto rows_of = [&](int kind) { return has(kind) ? allocate_rows(x, hidden()) : Tensor(); };
    const Drive d{rows_of(to_z), rows_of(to_turn), rows_of(to_keep)};
    const int64_t rows = count_rows(x);
    const Products products(*this, rows, {true, has(to_read), has(to_turn), has(to_keep)});
    const Scratch opening(has(to_read) ? products.most * hidden() : 0);
    each_row_part(rows, [&](int64_t first, int64_t count) {
      const auto part = [&](const Tensor& t) { return t.defined() ? write<float>(t) + first * hidden() : nullptr; };
      const Rows to{part(d.z), opening, part(d.angle), part(d.decay)};
      each_piece(count, [&](int64_t begin, int64_t end, int64_t) {
        products.run(read<float>(x) + first * features(), count, to, begin, end);
        const Choices choices{hidden(), to[to_z], to[to_read], read<float>(angle), to[to_turn], to[to_keep]};
        if (chooses()) choose_vector(choices, begin, end);
      });
    });
    return d;
  }

  // Returns the gradient of x, given those of what drives and of the bits that each decay stores, and adds those of parameters
  // to their sums: of the weight and the bias of z with gamma.
  Tensor backward(const Tensor& x_, const Drive& grad, const Tensor& decay, float of_bits, const Tensor* sums) const {
    const Tensor x = plain(x_), grad_x = allocate(x.sizes(), x.options());
    const int64_t in = features(), out = hidden(), rows = count_rows(x);
    const Products again(*this, rows, {has(to_read), has(to_read), has(to_turn), false});
    const int64_t most = again.most * out;
    const Scratch scaled(most), z(chooses() ? most : 0), opening(has(to_read) ? most : 0);
    const Scratch turn(has(to_turn) ? most : 0), keep(has(to_keep) ? most : 0);
    const Rows own{z, opening, turn, keep};
    PieceSums of_weight(in, rows, norms() && sum_of(sums[0])), of_bias(in, rows, norms() && sum_of(sums[1]));
    PieceSums of_angle(out, rows, has(to_turn) && sum_of(sums[angle_sum]));
    each_row_part(rows, [&](int64_t first, int64_t count) {
      const auto part = [&](const Tensor& t) { return t.defined() ? read<float>(t) + first * out : nullptr; };
      const float *from = read<float>(x) + first * in, *of_z = chooses() ? own[to_z] : part(grad.z);
      const std::array<const float*, kinds> gradients{scaled, own[to_read], own[to_turn], own[to_keep]};
      float* to = write<float>(grad_x) + first * in;
      each_piece(count, [&](int64_t begin, int64_t end, int64_t piece) {
        again.run(from, count, own, begin, end);
        if (chooses()) {
          choose_backward_vector({out, read<float>(angle), part(decay), part(grad.z), part(grad.angle), part(grad.decay),
                                  of_bits, own[to_z], own[to_read], own[to_turn], own[to_keep], of_angle.of(piece)},
                                 begin, end);
        }
        multiply_rows_vector(out, of_z, read<float>(scale), scaled, begin, end);
        for (int kind = to_z; kind < kinds; ++kind) {
          if (!has(kind)) continue;
          const float* sum = kind == to_z ? nullptr : to;
          multiply_vector({count, in, out, gradients[kind], out, 1, read<float>(weight(kind)), sum, in, to}, begin, end);
        }
        if (norms()) {
          const LayerNorm norm = again.norm(from);
          layer_norm_backward_vector({norm, to, to, of_weight.of(piece), of_bias.of(piece)}, begin, end);
        }
      });
      of_weight.end_part();
      of_bias.end_part();
      of_angle.end_part();
      for (int kind = to_z; kind < kinds; ++kind) {
        const float* g = kind == to_z ? of_z : gradients[kind];
        if (float* sum = sum_of(sums[sums_of[kind]])) add_outer_product(count, out, in, g, again.normed_rows(from), sum);
        if (float* sum = sum_of(sums[sums_of[kind] + 1])) add_rows(count, out, g, sum);
      }
    });
    of_weight.add_to(sum_of(sums[0]));
    of_bias.add_to(sum_of(sums[1]));
    of_angle.add_to(sum_of(sums[angle_sum]));
    return grad_x;
  }

 private:
  // The norm and some of the projections of a part of the rows.
  struct Products {
    const Inner& inner;
    std::array<bool, kinds> which;
    int64_t most, size;  // rows of a part, and numbers of a weight
    Scratch normed, moments, turned;

    Products(const Inner& inner, int64_t rows, std::array<bool, kinds> which)
        : inner(inner), which(which), most(std::min(rows, part_rows)), size(inner.features() * inner.hidden()),
          normed(inner.norms() ? most * inner.features() : 0), moments(2 * most), turned(place(kinds)) {
      for (int kind = to_z; kind < kinds; ++kind) {
        if (!which[kind]) continue;
        const float* by = kind == to_z ? read<float>(inner.scale) : nullptr;
        transpose_vector(inner.hidden(), inner.features(), read<float>(inner.weight(kind)), by, turned + place(kind));
      }
    }
    int64_t place(int kind) const { return size * std::count(which.begin(), which.begin() + kind, true); }
    LayerNorm norm(const float* x) const {
      return {inner.features(), x, read<float>(inner.norm_weight), read<float>(inner.norm_bias), inner.eps, normed, moments};
    }
    const float* normed_rows(const float* x) const { return inner.norms() ? normed : x; }
    void run(const float* x, int64_t count, const Rows& to, int64_t begin, int64_t end) const {
      if (inner.norms()) layer_norm_vector(norm(x), begin, end);
      for (int kind = to_z; kind < kinds; ++kind) {
        if (!which[kind]) continue;
        const float *b = turned + place(kind), *bias = read<float>(inner.projections[kind].bias);
        multiply_vector({count, inner.hidden(), inner.features(), normed_rows(x), inner.features(), 1, b, bias, 0, to[kind]},
                        begin, end);
      }
    }
  };
};

}  // namespace
}  // namespace irevrnn
