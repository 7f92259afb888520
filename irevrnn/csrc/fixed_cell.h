// The cell in fixed point: V holds values (float, double or a pack), L the fixed-point numbers that go
// with it (int32_t or a pack). Compare irevrnn/strategies/fixed_point.py line by line.
#pragma once

#include "bit_stack.h"
#include "cell.h"

namespace irevrnn {

// weight * f(x) as a fixed-point number: the one function that both directions share, so that what was
// added is subtracted to the last bit. x comes in whole units and the weight in those of f.
template <class V, class F>
IREVRNN_INLINE auto increment(const F& f, const Unit& of_f, const V& weight, const V& x) {
  if constexpr (F::is_homogeneous) {
    return nearest(weight * f(x));
  } else {
    return nearest(weight * f(scaled(x, of_f.size)));
  }
}

// The couplings (paper, eq:coupling), like couple in cell.h. largest grows to the magnitude, in units, of
// the largest p and c on the way, p_R apart: where one leaves the range, what follows may wrap around, or come back
// from a cut-off increment as a number that looks right.
template <class V, class F, class L, class Weights>
IREVRNN_INLINE void couple_fixed(const F& f, const Unit& of_f, L& p, L& c, int couplings, const Weights& w,
                                 V& largest) {
  for (int i = 0; i < couplings; ++i) {
    const V whole_p = whole_values<V>(p);
    c = plus(c, increment(f, of_f, w.a(i), whole_p));
    const V whole_c = whole_values<V>(c);
    p = plus(p, increment(f, of_f, w.b(i), whole_c));
    largest = larger(largest, larger(absolute(whole_p), absolute(whole_c)));
  }
}

// Their inverse (paper, eq:inverse).
template <class V, class F, class L, class Weights>
IREVRNN_INLINE void uncouple_fixed(const F& f, const Unit& of_f, L& p, L& c, int couplings, const Weights& w) {
  for (int i = couplings - 1; i >= 0; --i) {
    p = minus(p, increment(f, of_f, w.b(i), whole_values<V>(c)));
    c = minus(c, increment(f, of_f, w.a(i), whole_values<V>(p)));
  }
}

}  // namespace irevrnn
