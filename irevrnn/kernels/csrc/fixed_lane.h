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

template <int R, class F, class T>
struct FixedLane {
  F f;
  int couplings;
  UnitWeights<T, R> w;
  Decay decay;

  IREVRNN_INLINE FixedLane(const FixedPass<T>& s, const F& f, int64_t unit)
      : f(f), couplings(R == any ? s.couplings : R), w(s, unit), decay(decay_of(w.u())) {}

  IREVRNN_INLINE static Scales<T> scales_of(const LaneState& x) {
    return {scale_of<T>(x.bits_h), scale_of<T>(x.bits_c)};
  }
  IREVRNN_INLINE FixedWeights<T, R> weights(const Scales<T>& scales) const {
    return {w, factor_of_weight<F>(scales.h, scales.c), factor_of_weight<F>(scales.c, scales.h)};
  }

  // The states after a step, before g; and whether all numbers on the way to each were in range.
  struct Step {
    int32_t y, c;
    bool h_fits, c_fits;
    IREVRNN_INLINE bool fits() const { return h_fits && c_fits; }
  };

  template <class Bits>
  IREVRNN_INLINE Step step(const LaneState& x, T z, uint32_t offset, Bits& bits) const {
    const Scales<T> scales = scales_of(x);
    int32_t p = forget(x.h, decay, offset, bits), c = x.c;
    T largest_p{}, largest_c{};
    couple_fixed<T>(f, scales, p, c, couplings, weights(scales), largest_p, largest_c);
    const T quanta = scales.h.quanta_of(z);
    largest_p = larger(largest_p, absolute(quanta));  // last, as a NaN stays from here on
    const int32_t y = plus(nearest(quanta), p);
    return {y, c, all_below(largest_p, range) && !out_of_range(y), all_below(largest_c, range)};
  }

  // Finds the change of scales with which a step fits, where it does not: try_step(x) is called with scales that get coarser,
  // until it returns what fits. False if there are no such scales.
  template <class Try>
  IREVRNN_INLINE static bool find_scales(const LaneState& x, Rescaling& by, const Try& try_step) {
    if (out_of_range(x.h) || out_of_range(x.c)) return false;  // they are no numbers of this scale
    for (by = {};;) {
      const LaneState tried = rescaled(x, by);
      if (tried.bits_h < fewest_bits || tried.bits_c < fewest_bits) return false;
      const Step result = try_step(tried);
      if (result.fits()) return true;
      if (!result.h_fits) by.h -= coarser_by(tried.bits_h);
      if (!result.c_fits) by.c -= coarser_by(tried.bits_c);
    }
  }
};

}  // namespace irevrnn
