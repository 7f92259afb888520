// The types of sequences: float, double, and the two of 16 bits, which are widened to float where they
// are read and rounded to nearest, ties to even, where they are written.
#pragma once

#include "portable.h"
#if defined(__CUDACC__)
#include <cuda_fp16.h>
#else
#include <c10/util/Half.h>
#endif

namespace irevrnn {

struct float16 { uint16_t bits; };
struct bfloat16 { uint16_t bits; };

// The type of the states of a sequence of type IO.
template <class IO>
struct StateOf { using type = float; };
template <>
struct StateOf<double> { using type = double; };
template <class IO>
using state_type = typename StateOf<IO>::type;

IREVRNN_INLINE float widen(float x) { return x; }
IREVRNN_INLINE double widen(double x) { return x; }
IREVRNN_INLINE float widen(bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}
IREVRNN_INLINE float widen(float16 x) {
#if defined(__CUDACC__)
  return __half2float(__half(__half_raw{x.bits}));
#else
  return c10::detail::fp16_ieee_to_fp32_value(x.bits);
#endif
}

IREVRNN_INLINE void narrow(float x, float& to) { to = x; }
IREVRNN_INLINE void narrow(double x, double& to) { to = x; }
IREVRNN_INLINE void narrow(float x, bfloat16& to) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}
IREVRNN_INLINE void narrow(float x, float16& to) {
#if defined(__CUDACC__)
  to.bits = static_cast<__half_raw>(__float2half_rn(x)).x;
#else
  to.bits = c10::detail::fp16_ieee_from_fp32_value(x);
#endif
}

}  // namespace irevrnn
