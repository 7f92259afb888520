// The cell in fixed point: V holds values (float, double or a pack), L the fixed-point numbers that go
// with it (int32_t or a pack). Compare tests/fixed_reference.py line by line.
#pragma once

#include "bit_stack.h"
#include "cell.h"
#include "rotation.h"

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

}  // namespace irevrnn
