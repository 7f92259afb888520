// The rotation of a selective oscillator, written once for host and device: V is float, double, or a pack of vectors of
// floats. Compare rotate in irevrnn/kernels/reference.py.
#pragma once

#include "portable.h"
#include "vectors.h"

namespace irevrnn {

// An angle as half turns and a rest of at most a quarter turn either way, by which three shears turn a state without any
// tangent above 1.
template <class V>
struct Rotation {
  V tangent, sine;  // of half the rest, and of the rest
  V sign;           // -1 where the number of half turns is odd, else 1
};

// For float and its vectors. Relative errors of the polynomials, which are minimax: 1.8e-8 and 6.1e-9.
template <class V>
IREVRNN_INLINE Rotation<V> rotation_of(V angle) {
  const V magic = broadcast<V>(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const V shifted = fma(angle, broadcast<V>(0.318309886f), magic);
  const V half_turns = shifted - magic;
  V rest = fma(-half_turns, broadcast<V>(3.14159274f), angle);
  rest = fma(half_turns, broadcast<V>(8.74227766e-8f), rest);  // what that number is larger than pi
  const V half = broadcast<V>(0.5f) * rest, x = half * half, y = rest * rest;
  V t = fma(broadcast<V>(9.385649016e-3f), x, broadcast<V>(3.119500184e-3f));
  V s = fma(broadcast<V>(2.605780492e-6f), y, broadcast<V>(-1.980960284e-4f));
  t = fma(t, x, broadcast<V>(2.443039988e-2f));
  s = fma(s, y, broadcast<V>(8.333066245e-3f));
  t = fma(t, x, broadcast<V>(5.341120668e-2f));
  s = fma(s, y, broadcast<V>(-1.666665955e-1f));
  t = fma(t, x, broadcast<V>(1.333880030e-1f));
  t = fma(t, x, broadcast<V>(3.333315682e-1f));
  return {fma(half * x, t, half), fma(rest * y, s, rest), flip_by_low_bit(broadcast<V>(1.0f), shifted)};
}

template <>
IREVRNN_INLINE Rotation<double> rotation_of(double angle) {
  constexpr double pi = 3.141592653589793, below = 1.2246467991473532e-16;  // pi has this more
  const double half_turns = ::rint(angle / pi);
  const double rest = ::fma(-half_turns, below, ::fma(-half_turns, pi, angle));
  return {::tan(0.5 * rest), ::sin(rest), ::fmod(half_turns, 2.0) == 0.0 ? 1.0 : -1.0};
}

// The shears (paper, eq:shears), but for the sign.
template <class V>
IREVRNN_INLINE void rotate(const Rotation<V>& r, V& p, V& q) {
  p = fma(-r.tangent, q, p);
  q = fma(r.sine, p, q);
  p = fma(-r.tangent, q, p);
}

// Their inverse, which is also their transpose.
template <class V>
IREVRNN_INLINE void rotate_back(const Rotation<V>& r, V& p, V& q) {
  p = fma(r.tangent, q, p);
  q = fma(-r.sine, p, q);
  p = fma(r.tangent, q, p);
}

// Backpropagation through a step: d and d_c are the gradients of h and c after it on entry, before it on return; p and q are
// the rotated state. Returns the gradient of the angle, and by of_decay that of the decay.
template <class V>
IREVRNN_INLINE V turn_back(const Rotation<V>& r, const V& factor, const V& p, const V& q, V& d, V& d_c, V& of_decay) {
  of_decay = r.sign * fma(d, p, d_c * q);
  d = factor * d;
  d_c = factor * d_c;
  const V of_angle = fma(d_c, p, -d * q);
  rotate_back(r, d, d_c);
  return of_angle;
}

}  // namespace irevrnn
