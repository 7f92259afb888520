// The cell in fixed point: V holds values (float, double or a pack), L the fixed-point numbers that go
// with it (int64_t or a pack). Compare irevrnn/fixed_point.py line by line.
#pragma once

#include "bit_stack.h"
#include "cell.h"

namespace irevrnn {

// weight * f(x) as a fixed-point number: the one function that both directions share, so that what was
// added is subtracted to the last bit.
template <class V>
IREVRNN_INLINE auto increment(const V& weight, const V& f) { return fixed_of(weight * f); }

// The couplings (paper, eq:coupling), like couple in cell.h.
template <Activation f, class V, class L, class Weights, class Keep>
IREVRNN_INLINE void couple_fixed(L& p, L& c, int couplings, const Weights& w, const Keep& keep) {
  for (int i = 0; i < couplings; ++i) {
    const V f_p = activate<f>(values_of<V>(p));
    c = c + increment(w.a(i), f_p);
    const V f_c = activate<f>(values_of<V>(c));
    p = p + increment(w.b(i), f_c);
    keep(i, f_p, f_c);
  }
}

// Their inverse (paper, eq:inverse).
template <Activation f, class V, class L, class Weights>
IREVRNN_INLINE void uncouple_fixed(L& p, L& c, int couplings, const Weights& w) {
  for (int i = couplings - 1; i >= 0; --i) {
    p = p - increment(w.b(i), activate<f>(values_of<V>(c)));
    c = c - increment(w.a(i), activate<f>(values_of<V>(p)));
  }
}

}  // namespace irevrnn
