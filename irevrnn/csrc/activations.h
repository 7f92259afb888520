// The nonlinearities of irevrnn/activations.py for C++ and CUDA, each with its slope as a function of
// its output (paper, eq:slope).
//
// Every function is a template over the value type V: float, double, or a vector of floats
// (vectors.h). float and its vectors share one formula whose rounding is fixed (explicit fma, no
// contraction), so a lane gives the same bits in a vector body, in its tail and on its own.
#pragma once

#include "portable.h"
#if !defined(__CUDACC__)
#include "vectors.h"
#endif

namespace irevrnn {

enum class Activation { relu, tanh, sigmoid, leaky_relu, identity };

// A power of two, so that exact arithmetic can undo it; irevrnn/activations.py has the same value.
constexpr float negative_slope = 0.25f;

// 2^r - 1 for |r| <= 1/2, relative error 1e-8: a minimax polynomial.
template <class V>
IREVRNN_INLINE V exp2_minus_one(V r) {
  V q = broadcast<V>(1.540338683e-04f);
  q = fma(q, r, broadcast<V>(1.339073674e-03f));
  q = fma(q, r, broadcast<V>(9.618238035e-03f));
  q = fma(q, r, broadcast<V>(5.550357433e-02f));
  q = fma(q, r, broadcast<V>(2.402264979e-01f));
  q = fma(q, r, broadcast<V>(6.931471879e-01f));
  return q * r;
}

// Adding 1.5 * 2^23 rounds a float to an integer and leaves that integer in its low bits.
constexpr float rounding_magic = 12582912.0f;

// tanh x = e / (e + 2) with e = exp(2|x|) - 1: no cancellation near 0, and 1 to the last bit where
// tanh is. Error at most 2 ulp.
template <class V>
IREVRNN_INLINE V tanh_single(V x) {
  const V two_log2_e = broadcast<V>(2.885390082f);
  const V limit = broadcast<V>(9.2f);  // tanh is 1 in float from 9.02 on
  V magnitude = absolute(x);
  magnitude = limit < magnitude ? limit : magnitude;  // in this order, a NaN stays a NaN
  const V shifted = fma(magnitude, two_log2_e, broadcast<V>(rounding_magic));
  const V n = shifted - broadcast<V>(rounding_magic);
  const V r = fma(magnitude, two_log2_e, -n);
  const V power = exponent_from_low_bits(shifted);  // 2^n
  const V e = fma(power, exp2_minus_one(r), power - broadcast<V>(1.0f));
  return copy_sign(e / (e + broadcast<V>(2.0f)), x);
}

// 1 / (1 + exp(-x)). log2(e) comes in two parts: exp magnifies an error of its argument.
template <class V>
IREVRNN_INLINE V sigmoid_single(V x) {
  const V high = broadcast<V>(-1.442695022f), low = broadcast<V>(-1.925963033e-08f);
  const V limit = broadcast<V>(87.0f), negative_limit = broadcast<V>(-87.0f);
  V y = limit < x ? limit : x;
  y = y < negative_limit ? negative_limit : y;
  const V shifted = fma(y, high, broadcast<V>(rounding_magic));
  const V n = shifted - broadcast<V>(rounding_magic);
  const V r = fma(y, low, fma(y, high, -n));
  const V power = exponent_from_low_bits(shifted);
  const V one = broadcast<V>(1.0f);
  return one / (one + fma(power, exp2_minus_one(r), power));
}

template <class V>
IREVRNN_INLINE V tanh_value(V x) { return tanh_single(x); }
template <>
IREVRNN_INLINE double tanh_value(double x) { return ::tanh(x); }

template <class V>
IREVRNN_INLINE V sigmoid_value(V x) { return sigmoid_single(x); }
template <>
IREVRNN_INLINE double sigmoid_value(double x) { return 1.0 / (1.0 + ::exp(-x)); }

template <Activation kind, class V>
IREVRNN_INLINE V activate(V x) {
  const V zero = broadcast<V>(0.0f);
  if constexpr (kind == Activation::relu) return x <= zero ? zero : x;  // passes a NaN on
  if constexpr (kind == Activation::tanh) return tanh_value(x);
  if constexpr (kind == Activation::sigmoid) return sigmoid_value(x);
  if constexpr (kind == Activation::leaky_relu) {
    return x <= zero ? x * broadcast<V>(negative_slope) : x;
  }
  return x;
}

// The derivative of activate<kind> where its output is y.
template <Activation kind, class V>
IREVRNN_INLINE V slope_from_output(V y) {
  const V zero = broadcast<V>(0.0f), one = broadcast<V>(1.0f);
  if constexpr (kind == Activation::relu) return y <= zero ? zero : one;  // a NaN passes, as in PyTorch
  if constexpr (kind == Activation::tanh) return fma(-y, y, one);
  if constexpr (kind == Activation::sigmoid) return fma(-y, y, y);
  if constexpr (kind == Activation::leaky_relu) return y > zero ? one : broadcast<V>(negative_slope);
  return one;
}

// Calls fn with the kind as a compile-time constant, so that a switch stays out of inner loops.
template <class Fn>
IREVRNN_INLINE auto with_activation(Activation kind, Fn&& fn) {
  switch (kind) {
    case Activation::relu: return fn(constant<Activation::relu>{});
    case Activation::tanh: return fn(constant<Activation::tanh>{});
    case Activation::sigmoid: return fn(constant<Activation::sigmoid>{});
    case Activation::leaky_relu: return fn(constant<Activation::leaky_relu>{});
    default: return fn(constant<Activation::identity>{});
  }
}

}  // namespace irevrnn
