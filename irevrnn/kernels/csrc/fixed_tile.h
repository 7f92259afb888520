// The fixed-point recurrence over a tile of vectors; compare fixed_thread.h. A tile here also has L, the
// fixed-point numbers of its lanes, and the operations that act on the bit stack, for all lanes in a fixed order.
#pragma once

#include <algorithm>
#include <vector>

#include "fixed_cell.h"
#include "fixed_scan.h"
#include "selective_tile.h"

namespace irevrnn {

// Of two steps that may be missing (-1).
inline int64_t earlier(int64_t s, int64_t t) { return s < 0 || (t >= 0 && t < s) ? t : s; }

// m, shift, sign and inverse of each unit's decay (decay.h), continued periodically like UnitRows.
struct DecayRows {
  std::vector<int32_t> m, shift, sign;
  std::vector<double> inverse;

  template <class T>
  DecayRows(const Sizes<T>& s, int width)
      : m(s.hidden + width), shift(m.size()), sign(m.size()), inverse(m.size()) {
    for (int64_t i = 0; s.u && i < s.hidden; ++i) {
      const Decay d = decay_of(s.u[i]);
      for (size_t j = i; j < m.size(); j += s.hidden) {
        m[j] = d.m;
        shift[j] = d.shift;
        sign[j] = d.sign;
        inverse[j] = d.inverse;
      }
    }
  }

  template <class Tile>
  IREVRNN_INLINE typename Tile::DecayL of(const Tile& tile, int64_t unit) const {
    return tile.decay(&m[unit], &shift[unit], &sign[unit], &inverse[unit]);
  }
};

// Asks for the rows of z and out that come next (prefetch in scan_tile.h).
template <class Tile, class T>
IREVRNN_INLINE void expect_rows(const FixedPass<T>& s, int64_t at) {
  prefetch<Tile::width>(s.z + at);
  prefetch<Tile::width, true>(s.out + at);
}

// The scales of a tile, and the weights of its couplings with their factors.
template <class F, class Tile>
struct TileScales {
  using V = typename Tile::V;
  Scales<V> of;
  TileWeights<Tile> weights;

  // scratch: (1 + 2R, width), of which the row of u is not written.
  template <class T>
  IREVRNN_INLINE TileScales(const FixedPass<T>& s, const Tile& tile, UnitRows<const T> rows, int64_t lane, T* scratch)
      : of{scale_of<V>(tile.load(s.bits_h + lane)), scale_of<V>(tile.load(s.bits_c + lane))},
        weights{UnitRows<const T>{scratch, Tile::width}, s.couplings} {
    const V of_a = factor_of_weight<F>(of.h, of.c), of_b = factor_of_weight<F>(of.c, of.h);
    for (int i = 0; i < s.couplings; ++i) {
      const int64_t a = 1 + i, b = a + s.couplings;
      Tile::store_whole(scratch + a * Tile::width, Tile::load_whole(rows.row(a)) * of_a);
      Tile::store_whole(scratch + b * Tile::width, Tile::load_whole(rows.row(b)) * of_b);
    }
  }
};

// The steps of a tile, forward and undone, for lanes from `lane` on and inputs z in quanta.
template <class F, class Tile, class T>
struct OscillatingTile {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const FixedPass<T>& s;
  F f;
  const Tile& tile;
  typename Tile::DecayL decay;
  TileScales<F, Tile> scales;

  IREVRNN_INLINE OscillatingTile(const FixedPass<T>& s, F f, const Tile& tile, UnitRows<const T> rows,
                                 const DecayRows& decays, int64_t lane, T* scratch)
      : s(s), f(f), tile(tile), decay(decays.of(tile, lane % s.hidden)), scales(s, tile, rows, lane, scratch) {}

  IREVRNN_INLINE const Scales<V>& of() const { return scales.of; }
  IREVRNN_INLINE L step(const L& h, L& c, int64_t t, uint32_t offset, Bits& bits, V& largest) const {
    L p = tile.forget(h, decay, offset, bits);
    couple_fixed<V>(f, scales.of, p, c, s.couplings, scales.weights, largest, largest);
    return p;
  }
  IREVRNN_INLINE L undo(L p, L& c, int64_t t, uint32_t offset, Bits& bits) const {
    uncouple_fixed<V>(f, scales.of, p, c, s.couplings, scales.weights);
    return tile.recall(p, decay, offset, bits);
  }
  IREVRNN_INLINE void expect(int64_t) const {}
};

// The same of selective oscillators.
template <class Tile, class T>
struct TurningTile {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const FixedPass<T>& s;
  const Tile& tile;
  int64_t lane;
  Scales<V> scales;

  IREVRNN_INLINE TurningTile(const FixedPass<T>& s, const Tile& tile, int64_t lane)
      : s(s), tile(tile), lane(lane), scales{scale_of<V>(tile.load(s.bits_h + lane)), scale_of<V>(tile.load(s.bits_c + lane))} {}

  IREVRNN_INLINE const Scales<V>& of() const { return scales; }
  IREVRNN_INLINE L step(const L& h, L& c, int64_t t, uint32_t offset, Bits& bits, V& largest) const {
    const Turn<V> turn(s, tile, lane, s.row(t));
    L p = h;
    FixedShears<V>(turn.rotation, scales).turn(p, c, largest, largest);
    const auto decay = tile.decay(turn.factor);
    p = tile.forget(p, decay, offset, bits);
    c = tile.forget(c, decay, offset, bits);
    // Not where it is above 1, or NaN.
    if (!all_below(absolute(turn.factor), above_one)) largest = Tile::all(cut_off);
    return p;
  }
  IREVRNN_INLINE L undo(const L& y, L& c, int64_t t, uint32_t offset, Bits& bits) const {
    const Turn<V> turn(s, tile, lane, s.row(t));
    const auto decay = tile.decay(turn.factor);
    c = tile.recall(c, decay, offset, bits);
    L p = tile.recall(y, decay, offset, bits);
    FixedShears<V>(turn.rotation, scales).turn_back(p, c);
    return p;
  }
  IREVRNN_INLINE void expect(int64_t at) const { expect_turn<Tile>(s, at); }
};

// Returns `end`, or the step of which a number does not fit the scales; then the states and the stack stay as they are.
template <class Cell, class Tile, class T>
IREVRNN_FLATTEN int64_t fixed_forward_tile(const FixedForward<T>& s, const Cell& cell, Tile tile, Bits& stack, int64_t lane,
                                           int64_t begin, int64_t end, int64_t ahead) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const Scales<V> of = cell.of();
  Bits bits = stack;  // a copy, as it may stay in registers
  L h = tile.load(s.h + lane);
  L c = tile.load(s.c + lane);
  if (tile.out_of_range(h) || tile.out_of_range(c)) return begin;
  if (T* border = s.border(begin)) tile.store(border + lane, of.c.values_of(c));
  for (int64_t t = begin; t < end; ++t) {
    V largest{};
    const L p = cell.step(h, c, t, offset_of(s.first_step + t), bits, largest);
    const int64_t at = s.row(t) + lane;
    expect_rows<Tile>(s, at + ahead);
    cell.expect(at + ahead);
    const V z = of.h.quanta_of(tile.load(s.z + at));
    largest = larger(largest, absolute(z));  // last, as a NaN stays from here on
    const L y = plus(nearest(z), p);
    if (__builtin_expect(!all_below(largest, range) || tile.out_of_range(y), 0)) return t;
    h = tile.forget_output(s.activation, y, bits);
    tile.store(s.out + at, of.h.values_of(h));
  }
  stack = bits;
  tile.store(s.h + lane, h);
  tile.store(s.c + lane, c);
  return end;
}

// The resets before a step, in the lanes' order, and undone.
template <class T>
void forget_resets(const FixedPass<T>& s, const Cuts<T>& cuts, int64_t t, Bits& bits) {
  cuts.each_reset(t, [&](int64_t first, int64_t past_last) {
    for (int64_t i = first; i < past_last; ++i) forget_reset(s.h[i], s.c[i], bits);
  });
}

template <class T>
void recall_resets(const FixedPass<T>& s, const Cuts<T>& cuts, int64_t t, Bits& bits) {
  cuts.template each_reset<-1>(t, [&](int64_t first, int64_t past_last) {
    for (int64_t i = past_last - 1; i >= first; --i) recall_reset(s.h[i], s.c[i], bits);
  });
}

// Steps end - 1 down to begin undone.
template <class Cell, class Tile, class T>
IREVRNN_FLATTEN void fixed_inverse_tile(const FixedInverse<T>& s, const Cell& cell, Tile tile, Bits& stack, int64_t lane,
                                        int64_t begin, int64_t end, int64_t ahead) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const Scales<V> of = cell.of();
  Bits bits = stack;
  L h = tile.load(s.h + lane);
  L c = tile.load(s.c + lane);
  for (int64_t t = end - 1; t >= begin; --t) {
    const int64_t at = s.row(t) + lane;
    expect_rows<Tile>(s, at + ahead);
    cell.expect(at + ahead);
    tile.store(s.out + at, of.h.values_of(h));
    const L p = minus(tile.recall_output(s.activation, h, bits), nearest(of.h.quanta_of(tile.load(s.z + at))));
    h = cell.undo(p, c, t, offset_of(s.first_step + t), bits);
  }
  if (T* border = s.border(begin)) tile.store(border + lane, of.c.values_of(c));
  stack = bits;
  tile.store(s.h + lane, h);
  tile.store(s.c + lane, c);
}

}  // namespace irevrnn
