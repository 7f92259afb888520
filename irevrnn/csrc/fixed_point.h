// Fixed-point numbers: 32-bit integers, whose unit is a power of two that each pass is given.
// irevrnn/strategies/fixed_point.py has the same constants and says how they were chosen.
#pragma once

#include "activations.h"
#if !defined(__CUDACC__)
#include "int_vectors.h"
#endif

namespace irevrnn {

constexpr int slope_bits = 2;                // leaky_relu's slope is 2^-2
constexpr int32_t range = int32_t{1} << 29;  // |x| is smaller, in units

static_assert(negative_slope * (1 << slope_bits) == 1.0f);

// One lane. Sums may leave the range, and wrap around before the check of the values on the way has its say: so they
// are taken as unsigned, where that is defined.
IREVRNN_INLINE int32_t plus(int32_t x, int32_t y) {
  return static_cast<int32_t>(static_cast<uint32_t>(x) + static_cast<uint32_t>(y));
}
IREVRNN_INLINE int32_t minus(int32_t x, int32_t y) {
  return static_cast<int32_t>(static_cast<uint32_t>(x) - static_cast<uint32_t>(y));
}
IREVRNN_INLINE int32_t choose(bool which, int32_t x, int32_t y) { return which ? x : y; }

// The largest float that int32_t has room for. What is cut off there stays out of range when two numbers in range are
// added, even where the sum wraps around.
constexpr float cut_off = 0x1.fffffep30f;

// The nearest whole number, ties to even: one instruction, on the GPU as on the CPU.
IREVRNN_INLINE int32_t nearest(float x) { return static_cast<int32_t>(::lrintf(saturate(x, cut_off))); }
IREVRNN_INLINE int32_t nearest(double x) { return static_cast<int32_t>(::lrint(saturate(x, cut_off))); }

template <class V>
IREVRNN_INLINE V whole_values(int32_t x) { return static_cast<V>(x); }
template <class T>
IREVRNN_INLINE T scaled(T x, float by) { return x * static_cast<T>(by); }

// The unit of a pass, 2^-fraction_bits, and how many of them make 1.
struct Unit {
  float size, count;

  template <class V, class L>
  IREVRNN_INLINE V values_of(const L& x) const { return scaled(whole_values<V>(x), size); }
  template <class V>
  IREVRNN_INLINE V units_of(const V& x) const { return scaled(x, count); }
};

IREVRNN_INLINE bool out_of_range(int32_t x) { return x >= range || x <= -range; }

}  // namespace irevrnn
