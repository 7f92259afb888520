// The functions of float and double by which the cell (cell.h) compiles for them with a host compiler and with nvcc.
// vectors.h has the same for vectors of floats.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__CUDACC__)
#define IREVRNN_INLINE __host__ __device__ __forceinline__
// Of what seldom runs: never inlined by a host compiler.
#define IREVRNN_RARE __host__ __device__
#define IREVRNN_FLATTEN
// A loop of so few passes that all are written out: then what it indexes may lie in registers.
#define IREVRNN_UNROLL _Pragma("unroll")
#else
#define IREVRNN_INLINE inline __attribute__((always_inline))
#define IREVRNN_RARE __attribute__((noinline))
// All that the function calls is inlined, lambdas too.
#define IREVRNN_FLATTEN __attribute__((flatten))
#define IREVRNN_UNROLL
#endif

namespace irevrnn {

// A value as a type, to hand a template argument to a generic lambda.
template <auto value_>
struct constant {
  static constexpr auto value = value_;
};

template <class Fn, int... i>
IREVRNN_INLINE void call_each(const Fn& fn, std::integer_sequence<int, i...>) {
  (fn(constant<i>{}), ...);
}

// fn(constant<0>), ..., fn(constant<count - 1>): unrolled.
template <int count, class Fn>
IREVRNN_INLINE void each(const Fn& fn) { call_each(fn, std::make_integer_sequence<int, count>{}); }

// Written out as calls of fma, never as a * b + c: what is contracted must not be the compiler's choice,
// as the backward pass has to repeat the forward pass to the last bit.
IREVRNN_INLINE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
IREVRNN_INLINE double fma(double a, double b, double c) { return ::fma(a, b, c); }

// The number of independent parts of V, and one of them. A pack has several (packs.h).
template <class V>
constexpr int parts_of = 1;
template <int i, class V>
IREVRNN_INLINE V& part_of(V& x) { return x; }

template <class V>
IREVRNN_INLINE V broadcast(float x) { return static_cast<V>(x); }

IREVRNN_INLINE float absolute(float x) { return ::fabsf(x); }
IREVRNN_INLINE double absolute(double x) { return ::fabs(x); }
// The second where one is NaN.
template <class V>
IREVRNN_INLINE V larger(V x, V y) { return x > y ? x : y; }
template <class V>
IREVRNN_INLINE V smaller(V x, V y) { return x < y ? x : y; }
template <class T>
IREVRNN_INLINE bool all_below(T x, float limit) { return x < limit; }
IREVRNN_INLINE float copy_sign(float magnitude, float sign) { return ::copysignf(magnitude, sign); }

// Within +-limit, which is where a NaN goes.
template <class V>
IREVRNN_INLINE V saturate(V x, float limit) {
  const V upper = broadcast<V>(limit), lower = broadcast<V>(-limit);
  return larger(smaller(x, upper), lower);
}

// 2^n from 1.5 * 2^23 + 127 + n, whose low bits move to the exponent.
IREVRNN_INLINE float power_from_low_bits(float shifted) {
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits <<= 23;
  memcpy(&shifted, &bits, sizeof bits);
  return shifted;
}

// x, with its sign changed if the lowest bit of `bits` is 1.
IREVRNN_INLINE float flip_by_low_bit(float x, float bits) {
  uint32_t number, low;
  memcpy(&number, &x, sizeof number);
  memcpy(&low, &bits, sizeof low);
  number ^= low << 31;
  memcpy(&x, &number, sizeof x);
  return x;
}

}  // namespace irevrnn
