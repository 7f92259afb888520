// Fixed-point numbers: 32-bit integers in quanta of 2^-bits. h and c of a lane each have a scale of their own, which changes
// (rescaling.h). irevrnn/recurrences/fixed_point.py says how the constants were chosen.
#pragma once

#include "activations.h"

namespace irevrnn {

constexpr int slope_bits = 2;                // leaky_relu's slope is 2^-2
constexpr int32_t range = int32_t{1} << 29;  // |x| is smaller, in quanta
constexpr int usual_bits = 24, fewest_bits = 6, most_bits = 64;

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

// 2^n, exactly.
IREVRNN_INLINE float power_of_two(int n) {
  const uint32_t bits = static_cast<uint32_t>(127 + n) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

// The scale of numbers: their quantum, and how many make 1.
template <class V>
struct Scale {
  V quantum, count;

  template <class L>
  IREVRNN_INLINE V values_of(const L& x) const { return whole_values<V>(x) * quantum; }
  IREVRNN_INLINE V quanta_of(const V& x) const { return x * count; }
};
template <class V>
IREVRNN_INLINE Scale<V> scale_of(int32_t bits) { return {V(power_of_two(-bits)), V(power_of_two(bits))}; }

IREVRNN_INLINE bool out_of_range(int32_t x) { return x >= range || x <= -range; }

}  // namespace irevrnn
