// The nonlinearities of irevrnn/kernels/activations.py for C++ and CUDA, each with its slope as a function of
// its output (paper, eq:slope).
//
// Every function is a template over the value type V: float, double, or a vector of floats
// (vectors.h). float and its vectors share one formula whose rounding is fixed (explicit fma, no
// contraction), so a lane gives the same bits in a vector body, in its tail and on its own.
#pragma once

#include "portable.h"
#include "vectors.h"

namespace irevrnn {

// All of them: X(name) for each. Each has its formulas below; one without does not compile.
#define IREVRNN_ACTIVATIONS(X) X(relu) X(tanh) X(sigmoid) X(leaky_relu) X(identity)

#define IREVRNN_ENUMERATOR(name) name,
#define IREVRNN_TEXT(name) #name,
enum class Activation { IREVRNN_ACTIVATIONS(IREVRNN_ENUMERATOR) };
constexpr const char* activation_names[] = {IREVRNN_ACTIVATIONS(IREVRNN_TEXT)};
#undef IREVRNN_ENUMERATOR
#undef IREVRNN_TEXT

// Whether f(s x) = s f(x) for s > 0: then powers of two go past it without a rounding.
constexpr bool homogeneous(Activation f) {
  return f == Activation::identity || f == Activation::leaky_relu || f == Activation::relu;
}
// Whether fixed-point arithmetic undoes it as g: bit_stack.h and fixed_vector_tiles.h know how. No other one passes.
constexpr bool invertible(Activation g) { return homogeneous(g); }

// A power of two, so that exact arithmetic can undo it; irevrnn/kernels/activations.py has the same value.
constexpr float negative_slope = 0.25f;

// (exp(2r) - 1) / 2 for |r| <= ln(2) / 4: a minimax polynomial of relative error 1.4e-8, whose leading term is
// r itself and so exact. Evaluated in parts (Estrin), of which none waits long for another.
template <class V>
IREVRNN_INLINE V half_exp_minus_one(V r) {
  const V square = r * r;
  const V low = fma(broadcast<V>(6.6666169384e-01f), r, broadcast<V>(9.9999996250e-01f));
  const V middle = fma(broadcast<V>(1.3386706175e-01f), r, broadcast<V>(3.3333764482e-01f));
  const V high = fma(broadcast<V>(4.4423918707e-02f), square, middle);
  return fma(square, fma(high, square, low), r);
}

// 2x = n * ln(2) + 2r with an integer n: power is 2^n.
template <class V>
struct Reduced {
  V n, r, power;
};

template <class V>
IREVRNN_INLINE Reduced<V> reduce(V x) {
  // Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits; 127 makes it an exponent.
  const V magic = broadcast<V>(12582912.0f + 127.0f);
  const V shifted = fma(x, broadcast<V>(2.885390082f), magic);
  const V n = shifted - magic;
  return {n, fma(-n, broadcast<V>(0.346573591f), x), power_from_low_bits(shifted)};
}

// tanh x = e / (e + 1) with e = (exp(2|x|) - 1) / 2: no cancellation near 0, and 1 to the last bit where tanh
// is. Error at most 2.6 ulp (2.52 over every 37th float, and above 2 for one in 90,000 of them).
template <class V>
IREVRNN_INLINE V accurate_tanh(V x) {
  const V limit = broadcast<V>(9.2f), half = broadcast<V>(0.5f);  // tanh is 1 in float from 9.02 on
  const Reduced<V> y = reduce(smaller(limit, absolute(x)));  // in this order, a NaN stays a NaN
  const V e = fma(y.power, half_exp_minus_one(y.r), fma(y.power, half, -half));
  return copy_sign(e / (e + broadcast<V>(1.0f)), x);
}
IREVRNN_INLINE double accurate_tanh(double x) { return ::tanh(x); }

// 1 / (1 + exp(-x)). Error at most 2.5 ulp (2.38 over every 37th float).
template <class V>
IREVRNN_INLINE V sigmoid(V x) {
  const V limit = broadcast<V>(43.5f), one = broadcast<V>(1.0f);
  const Reduced<V> y = reduce(-larger(-limit, smaller(limit, broadcast<V>(0.5f) * x)));
  // exp magnifies an error of its argument: here the second part of ln(2) counts.
  const V r = fma(y.n, broadcast<V>(0.952327162e-09f), y.r);
  return one / (one + fma(y.power + y.power, half_exp_minus_one(r), y.power));
}
IREVRNN_INLINE double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }

// tanh x = (x + x^3 P(x^2)) / (1 + x^2 Q(x^2)), minimax to 2.2e-8. Two thirds of the time of accurate_tanh, and no
// worse up to |x| = 1 (0.6 ulp root mean square). Then the rounding errors of both parts add up, to 1.2 ulp and 5.1
// at most near 8, where values up to 1 + 2.4e-7 occur.
template <class V>
IREVRNN_INLINE V tanh_rational(V x) {
  constexpr float limit = 9.01f;  // where this is 1 to the last bit
  x = larger(broadcast<V>(-limit), smaller(broadcast<V>(limit), x));  // in this order, a NaN stays a NaN
  const V square = x * x;
  V p = fma(broadcast<V>(1.34202413275e-08f), square, broadcast<V>(2.06616403384e-05f));
  V q = fma(broadcast<V>(7.80492315537e-07f), square, broadcast<V>(3.29107896705e-04f));
  p = fma(p, square, broadcast<V>(3.49902231028e-03f));
  q = fma(q, square, broadcast<V>(2.58903095859e-02f));
  p = fma(p, square, broadcast<V>(1.33840034619e-01f));
  q = fma(q, square, broadcast<V>(4.67173249862e-01f));
  const V cube = square * x;  // now, as registers are few
  q = fma(square, q, broadcast<V>(1.0f));
  return fma(cube, p, x) / q;
}

// The nonlinearity ...
template <Activation kind, class V>
IREVRNN_INLINE V activate(V x) {
  if constexpr (kind == Activation::relu) {
    return x <= broadcast<V>(0.0f) ? broadcast<V>(0.0f) : x;  // as in PyTorch, a NaN passes, in the slope, too
  } else if constexpr (kind == Activation::tanh) {
    return accurate_tanh(x);
  } else if constexpr (kind == Activation::sigmoid) {
    return sigmoid(x);
  } else if constexpr (kind == Activation::leaky_relu) {
    return x <= broadcast<V>(0.0f) ? x * broadcast<V>(negative_slope) : x;
  } else {
    static_assert(kind == Activation::identity, "give the new activation its formulas, here and below");
    return x;
  }
}

// ... and its derivative where its output is y.
template <Activation kind, class V>
IREVRNN_INLINE V slope_from_output(V y) {
  if constexpr (kind == Activation::relu) {
    return y <= broadcast<V>(0.0f) ? broadcast<V>(0.0f) : broadcast<V>(1.0f);
  } else if constexpr (kind == Activation::tanh) {
    return fma(-y, y, broadcast<V>(1.0f));
  } else if constexpr (kind == Activation::sigmoid) {
    return fma(-y, y, y);
  } else if constexpr (kind == Activation::leaky_relu) {
    return y > broadcast<V>(0.0f) ? broadcast<V>(1.0f) : broadcast<V>(negative_slope);
  } else {
    static_assert(kind == Activation::identity);
    return broadcast<V>(1.0f);
  }
}

// f, as the couplings apply it, 2R times a step: their weights scale its errors down.
template <Activation kind, class V>
IREVRNN_INLINE V activate_coupling(V x) {
  if constexpr (kind == Activation::tanh && !std::is_same_v<V, double>) return tanh_rational(x);
  return activate<kind>(x);
}

// Calls fn with the kind as a compile-time constant, so that a switch stays out of inner loops.
template <class Fn>
IREVRNN_INLINE auto with_activation(Activation kind, Fn&& fn) {
#define IREVRNN_CASE(name) case Activation::name: return fn(constant<Activation::name>{});
  switch (kind) {
    IREVRNN_ACTIVATIONS(IREVRNN_CASE)
    default: return fn(constant<Activation::identity>{});  // never: parse_activation lets no other kind in
  }
#undef IREVRNN_CASE
}

}  // namespace irevrnn
