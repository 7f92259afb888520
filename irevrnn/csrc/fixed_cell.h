// The cell in fixed point: V holds values (float, double or a pack), L the fixed-point numbers that go
// with it (int32_t or a pack). Compare irevrnn/strategies/fixed_point.py line by line.
#pragma once

#include "bit_stack.h"
#include "cell.h"

namespace irevrnn {

// weight * f(x) as a fixed-point number: the one function that both directions share, so that what was
// added is subtracted to the last bit. The weight comes in units.
template <class V>
IREVRNN_INLINE auto increment(const V& weight, const V& f) { return nearest(weight * f); }

// The couplings (paper, eq:coupling), like couple in cell.h. largest grows to the magnitude of the largest
// p and c on the way, p_R apart: where one leaves the range, what follows may wrap around, or come back
// from a cut-off increment as a number that looks right.
template <class V, class F, class L, class Weights>
IREVRNN_INLINE void couple_fixed(const F& f, const Unit& unit, L& p, L& c, int couplings, const Weights& w,
                                 V& largest) {
  for (int i = 0; i < couplings; ++i) {
    const V p_value = unit.values_of<V>(p);
    const V f_p = f(p_value);
    c = plus(c, increment(w.a(i), f_p));
    const V c_value = unit.values_of<V>(c);
    const V f_c = f(c_value);
    p = plus(p, increment(w.b(i), f_c));
    largest = larger(largest, larger(absolute(p_value), absolute(c_value)));
  }
}

// Their inverse (paper, eq:inverse).
template <class V, class F, class L, class Weights>
IREVRNN_INLINE void uncouple_fixed(const F& f, const Unit& unit, L& p, L& c, int couplings, const Weights& w) {
  for (int i = couplings - 1; i >= 0; --i) {
    const V f_c = f(unit.values_of<V>(c));
    p = minus(p, increment(w.b(i), f_c));
    const V f_p = f(unit.values_of<V>(p));
    c = minus(c, increment(w.a(i), f_p));
  }
}

}  // namespace irevrnn
