// The cell in fixed point: V holds values (float, double or a pack), L the fixed-point numbers that go
// with it (int32_t or a pack). Compare tests/fixed_reference.py line by line.
#pragma once

#include "lane.h"
#include "rescaling.h"
#include "steps.h"

namespace irevrnn {

// Of h, in which p and z are taken, too, and of c.
template <class V>
struct Scales {
  Scale<V> h, c;
};

// What a coupling's weight is multiplied by, if x has one scale and what f(x) is added to has another. An f that is
// homogeneous takes x in quanta.
template <class F, class V>
IREVRNN_INLINE V factor_of_weight(const Scale<V>& of_x, const Scale<V>& of_sum) {
  if constexpr (F::is_homogeneous) return of_sum.count * of_x.quantum;
  return of_sum.count;
}

// weight * f(x) as a fixed-point number: the one function that both directions share, so that what was
// added is subtracted to the last bit. x comes in quanta, and the weight with its factor.
template <class V, class F>
IREVRNN_INLINE auto increment(const F& f, const Scale<V>& of_x, const V& weight, const V& x) {
  if constexpr (F::is_homogeneous) {
    return nearest(weight * f(x));
  } else {
    return nearest(weight * f(x * of_x.quantum));
  }
}

// The couplings (paper, eq:coupling), like couple in cell.h. largest_p and largest_c, which may be one variable, grow to
// the magnitude, in quanta, of the largest p and c on the way, p_R apart: where one leaves the range, what follows may wrap
// around, or come back from a cut-off increment as a number that looks right.
template <class V, class F, class L, class Weights>
IREVRNN_INLINE void couple_fixed(const F& f, const Scales<V>& scales, L& p, L& c, int couplings, const Weights& w,
                                 V& largest_p, V& largest_c) {
  for (int i = 0; i < couplings; ++i) {
    const V whole_p = whole_values<V>(p);
    c = plus(c, increment(f, scales.h, w.a(i), whole_p));
    const V whole_c = whole_values<V>(c);
    p = plus(p, increment(f, scales.c, w.b(i), whole_c));
    largest_p = larger(largest_p, absolute(whole_p));
    largest_c = larger(largest_c, absolute(whole_c));
  }
}

// Their inverse (paper, eq:inverse).
template <class V, class F, class L, class Weights>
IREVRNN_INLINE void uncouple_fixed(const F& f, const Scales<V>& scales, L& p, L& c, int couplings, const Weights& w) {
  for (int i = couplings - 1; i >= 0; --i) {
    p = minus(p, increment(f, scales.c, w.b(i), whole_values<V>(c)));
    c = minus(c, increment(f, scales.h, w.a(i), whole_values<V>(p)));
  }
}

// The shears of a rotation (paper, eq:shears), like rotate in rotation.h, but for the sign; and their inverse.
template <class V>
struct FixedShears {
  V tangent, sine;

  IREVRNN_INLINE FixedShears(const Rotation<V>& r, const Scales<V>& of)
      : tangent(r.tangent * (of.h.count * of.c.quantum)), sine(r.sine * (of.c.count * of.h.quantum)) {}

  template <class L>
  IREVRNN_INLINE void turn(L& p, L& q, V& largest_p, V& largest_q) const {
    p = minus(p, nearest(tangent * whole_values<V>(q)));
    const V first_p = whole_values<V>(p);
    q = plus(q, nearest(sine * first_p));
    const V whole_q = whole_values<V>(q);
    p = minus(p, nearest(tangent * whole_q));
    largest_p = larger(larger(largest_p, absolute(first_p)), absolute(whole_values<V>(p)));
    largest_q = larger(largest_q, absolute(whole_q));
  }
  template <class L>
  IREVRNN_INLINE void turn_back(L& p, L& q) const {
    p = plus(p, nearest(tangent * whole_values<V>(q)));
    q = minus(q, nearest(sine * whole_values<V>(p)));
    p = plus(p, nearest(tangent * whole_values<V>(q)));
  }
};

// A step of a tile, or of a lane, in the scales of its states, and its inverse; offset is that of its decays at step t. step()
// returns what h becomes before z is added and g applied, of which undo() returns h; both move c. Tile has `decay`, `forget`
// and `recall` besides (fixed_vector_tiles.h, FixedLaneTile), and Weights are with their factors.
template <class F, class Tile, class Weights>
struct FixedCouplings {
  using V = typename Tile::V;
  using L = typename Tile::L;
  static constexpr bool turns = false;
  Tile tile;
  Scales<V> scales;
  F f;
  int couplings;
  Weights weights;
  typename Tile::DecayL decay;

  template <class Bits>
  IREVRNN_INLINE L step(const L& h, L& c, int64_t, uint32_t offset, Bits& bits, V& largest_p, V& largest_c) const {
    L p = tile.forget(h, decay, offset, bits);
    couple_fixed<V>(f, scales, p, c, couplings, weights, largest_p, largest_c);
    return p;
  }
  template <class Bits>
  IREVRNN_INLINE L undo(L p, L& c, int64_t, uint32_t offset, Bits& bits) const {
    uncouple_fixed<V>(f, scales, p, c, couplings, weights);
    return tile.recall(p, decay, offset, bits);
  }
};

template <class Tile, class T>
struct FixedTurns {
  using V = typename Tile::V;
  using L = typename Tile::L;
  static constexpr bool turns = true;
  Tile tile;
  Scales<V> scales;
  const FixedPass<T>& s;
  int64_t lane;

  template <class Bits>
  IREVRNN_INLINE L step(const L& h, L& c, int64_t t, uint32_t offset, Bits& bits, V& largest_p, V& largest_c) const {
    const Turn<V> turn(s, tile, lane, s.row(t));
    L p = h;
    FixedShears<V>(turn.rotation, scales).turn(p, c, largest_p, largest_c);
    const auto decay = tile.decay(turn.factor);
    p = tile.forget(p, decay, offset, bits);
    c = tile.forget(c, decay, offset, bits);
    // No scale has room where it is above 1, or NaN.
    if (!all_below(absolute(turn.factor), above_one)) largest_p = Tile::all(cut_off);
    return p;
  }
  template <class Bits>
  IREVRNN_INLINE L undo(const L& y, L& c, int64_t t, uint32_t offset, Bits& bits) const {
    const Turn<V> turn(s, tile, lane, s.row(t));
    const auto decay = tile.decay(turn.factor);
    c = tile.recall(c, decay, offset, bits);
    L p = tile.recall(y, decay, offset, bits);
    FixedShears<V>(turn.rotation, scales).turn_back(p, c);
    return p;
  }
};

// The weights of a lane's couplings, with their factors.
template <class T, int R>
struct FixedWeights {
  const UnitWeights<T, R>& w;
  T of_a, of_b;
  IREVRNN_INLINE T a(int i) const { return w.a(i) * of_a; }
  IREVRNN_INLINE T b(int i) const { return w.b(i) * of_b; }
};

// A bit stack that forgets.
struct NoBits {
  IREVRNN_INLINE void push(uint32_t, int) const {}
};

// The states of a lane after a step, before g; and whether all numbers on the way to each were in range.
struct FixedStep {
  int32_t y, c;
  bool h_fits, c_fits;
  IREVRNN_INLINE bool fits() const { return h_fits && c_fits; }

  // y = p + z. The largest numbers so far are in quanta; z comes last, as a NaN stays from there on.
  template <class T>
  IREVRNN_INLINE static FixedStep of(int32_t p, int32_t c, T z, T largest_p, T largest_c) {
    const int32_t y = plus(nearest(z), p);
    return {y, c, all_below(larger(largest_p, absolute(z)), range) && !out_of_range(y), all_below(largest_c, range)};
  }
};

template <class T>
IREVRNN_INLINE Scales<T> scales_of(const LaneState& x) { return {scale_of<T>(x.bits_h), scale_of<T>(x.bits_c)}; }

template <class T>
struct FixedLaneTile : LaneTile<T> {
  using L = int32_t;
  using DecayL = Decay;
  IREVRNN_INLINE static T all(float x) { return x; }
  IREVRNN_INLINE static Decay decay(T factor) { return decay_of(factor); }
  template <class Bits>
  IREVRNN_INLINE static L forget(L h, const Decay& d, uint32_t r, Bits& bits) { return irevrnn::forget(h, d, r, bits); }
  template <class Bits>
  IREVRNN_INLINE static L recall(L p, const Decay& d, uint32_t r, Bits& bits) { return irevrnn::recall(p, d, r, bits); }
};

// The cells of a lane, which differ by their scales.
template <int R, class F, class T>
struct LaneCouplings {
  F f;
  int couplings;
  UnitWeights<T, R> w;
  Decay decay;

  IREVRNN_INLINE LaneCouplings(const FixedPass<T>& s, const F& f, int64_t lane)
      : f(f), couplings(R == any ? s.couplings : R), w(s, lane % s.hidden), decay(decay_of(w.u())) {}
  IREVRNN_INLINE auto in(const Scales<T>& scales) const {
    const FixedWeights<T, R> weights{w, factor_of_weight<F>(scales.h, scales.c), factor_of_weight<F>(scales.c, scales.h)};
    return FixedCouplings<F, FixedLaneTile<T>, FixedWeights<T, R>>{{}, scales, f, couplings, weights, decay};
  }
};
template <class T>
struct LaneTurns {
  const FixedPass<T>& s;
  int64_t lane;

  IREVRNN_INLINE LaneTurns(const FixedPass<T>& s, const ChosenActivation&, int64_t lane) : s(s), lane(lane) {}
  IREVRNN_INLINE auto in(const Scales<T>& scales) const { return FixedTurns<FixedLaneTile<T>, T>{{}, scales, s, lane}; }
};

// A step of a lane with input z.
template <class Cells, class T, class Bits>
IREVRNN_INLINE FixedStep lane_step(const Cells& cells, const LaneState& x, T z, int64_t t, uint32_t offset, Bits& bits) {
  const auto cell = cells.in(scales_of<T>(x));
  int32_t c = x.c;
  T largest_p{}, largest_c{};
  const int32_t p = cell.step(x.h, c, t, offset, bits, largest_p, largest_c);
  return FixedStep::of(p, c, cell.scales.h.quanta_of(z), largest_p, largest_c);
}

// Finds the change of scales with which a step fits, where it does not: try_step(x) is called with scales that get coarser,
// until it returns what fits. False if there are no such scales.
template <class Try>
IREVRNN_INLINE bool find_scales(const LaneState& x, Rescaling& by, const Try& try_step) {
  if (out_of_range(x.h) || out_of_range(x.c)) return false;  // they are no numbers of this scale
  for (by = {};;) {
    const LaneState tried = rescaled(x, by);
    if (tried.bits_h < fewest_bits || tried.bits_c < fewest_bits) return false;
    const FixedStep result = try_step(tried);
    if (result.fits()) return true;
    if (!result.h_fits) by.h -= coarser_by(tried.bits_h);
    if (!result.c_fits) by.c -= coarser_by(tried.bits_c);
  }
}

}  // namespace irevrnn
