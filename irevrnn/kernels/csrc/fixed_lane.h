// A step of one lane in fixed point, and the scales that it needs.
#pragma once

#include "fixed_cell.h"
#include "lane.h"
#include "rescaling.h"

namespace irevrnn {

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

// The steps of a lane, forward and undone. They are inputs z at step t; offset is that of its decays.
template <int R, class F, class T>
struct FixedLane {
  F f;
  int couplings;
  UnitWeights<T, R> w;
  Decay decay;

  IREVRNN_INLINE FixedLane(const FixedPass<T>& s, const F& f, int64_t lane)
      : f(f), couplings(R == any ? s.couplings : R), w(s, lane % s.hidden), decay(decay_of(w.u())) {}

  IREVRNN_INLINE FixedWeights<T, R> weights(const Scales<T>& scales) const {
    return {w, factor_of_weight<F>(scales.h, scales.c), factor_of_weight<F>(scales.c, scales.h)};
  }

  template <class Bits>
  IREVRNN_INLINE FixedStep step(const LaneState& x, T z, int64_t, uint32_t offset, Bits& bits) const {
    const Scales<T> scales = scales_of<T>(x);
    int32_t p = forget(x.h, decay, offset, bits), c = x.c;
    T largest_p{}, largest_c{};
    couple_fixed<T>(f, scales, p, c, couplings, weights(scales), largest_p, largest_c);
    return FixedStep::of(p, c, scales.h.quanta_of(z), largest_p, largest_c);
  }
  // h and c before the step, of which y was the output before g.
  template <class Bits>
  IREVRNN_INLINE void undo(LaneState& x, int32_t y, T z, int64_t, uint32_t offset, Bits& bits) const {
    const Scales<T> scales = scales_of<T>(x);
    int32_t p = minus(y, nearest(scales.h.quanta_of(z)));
    uncouple_fixed<T>(f, scales, p, x.c, couplings, weights(scales));
    x.h = recall(p, decay, offset, bits);
  }
};

// The same of a selective oscillator.
template <class T>
struct TurningLane {
  const FixedPass<T>& s;
  int64_t lane;

  struct Turn {
    FixedShears<T> shears;
    T factor;
    Decay decay;
    IREVRNN_INLINE Turn(const Rotation<T>& r, T of_decay, const Scales<T>& of)
        : shears(r, of), factor(r.sign * of_decay), decay(decay_of(factor)) {}
  };
  IREVRNN_INLINE Turn turn(const LaneState& x, int64_t t) const {
    const int64_t row = s.row(t);
    return {rotation_of(s.angle.at(row)[lane]), s.decay ? s.decay.at(row)[lane] : T(1), scales_of<T>(x)};
  }

  template <class Bits>
  IREVRNN_INLINE FixedStep step(const LaneState& x, T z, int64_t t, uint32_t offset, Bits& bits) const {
    const Turn by = turn(x, t);
    int32_t p = x.h, q = x.c;
    T largest_p{}, largest_q{};
    by.shears.turn(p, q, largest_p, largest_q);
    p = forget(p, by.decay, offset, bits);
    q = forget(q, by.decay, offset, bits);
    if (!all_below(absolute(by.factor), above_one)) largest_p = T(cut_off);  // which no scale has room for
    return FixedStep::of(p, q, scales_of<T>(x).h.quanta_of(z), largest_p, largest_q);
  }
  template <class Bits>
  IREVRNN_INLINE void undo(LaneState& x, int32_t y, T z, int64_t t, uint32_t offset, Bits& bits) const {
    const Turn by = turn(x, t);
    int32_t p = minus(y, nearest(scales_of<T>(x).h.quanta_of(z)));
    x.c = recall(x.c, by.decay, offset, bits);
    x.h = recall(p, by.decay, offset, bits);
    by.shears.turn_back(x.h, x.c);
  }
};

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
