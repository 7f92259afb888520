// Fixed-point numbers: 64-bit integers in units of 2^-36. irevrnn/strategies/fixed_point.py has the same constants
// and says how they were chosen.
#pragma once

#include "activations.h"
#if !defined(__CUDACC__)
#include "longs.h"
#endif

namespace irevrnn {

constexpr int fraction_bits = 36;
constexpr int decay_bits = 16;  // Q: recurrent weights are n / 2^16
constexpr int64_t decay_one = int64_t{1} << decay_bits;
constexpr int slope_bits = 2;                // leaky_relu's slope is 2^-2
constexpr int64_t range = int64_t{1} << 57;  // |x| < 2^21 in value
constexpr float unit = 1.0f / (int64_t{1} << fraction_bits);
constexpr float units = int64_t{1} << fraction_bits;

static_assert(negative_slope * (1 << slope_bits) == 1.0f);

// One lane.
IREVRNN_INLINE double to_double(int64_t x) { return static_cast<double>(x); }
IREVRNN_INLINE int64_t to_long(double x) { return static_cast<int64_t>(x); }
IREVRNN_INLINE int64_t all_lanes(int64_t, int64_t x) { return x; }
IREVRNN_INLINE bool less(int64_t x, int64_t y) { return x < y; }
IREVRNN_INLINE int64_t choose(bool which, int64_t x, int64_t y) { return which ? x : y; }

template <class L>
struct DoublesOf;
template <>
struct DoublesOf<int64_t> {
  using type = double;
};
#if !defined(__CUDACC__)
template <>
struct DoublesOf<Longs> {
  using type = DoublesOfLongs;
};
#endif
template <class L>
using Doubles = typename DoublesOf<L>::type;

// Sums and products may leave the range, and wrap around before the check of the values on the way has its
// say: so they are taken as unsigned, where that is defined.
IREVRNN_INLINE int64_t plus(int64_t x, int64_t y) {
  return static_cast<int64_t>(static_cast<uint64_t>(x) + static_cast<uint64_t>(y));
}
IREVRNN_INLINE int64_t minus(int64_t x, int64_t y) {
  return static_cast<int64_t>(static_cast<uint64_t>(x) - static_cast<uint64_t>(y));
}
IREVRNN_INLINE int64_t times(int64_t x, int64_t n) {
  return static_cast<int64_t>(static_cast<uint64_t>(x) * static_cast<uint64_t>(n));
}

template <class T>
IREVRNN_INLINE T values_of(int64_t x) { return static_cast<T>(x) * static_cast<T>(unit); }

// A number that is out of range stays so when it is cut off here, and adding it to one in range does not
// wrap around.
constexpr float cut_off = 4.0f * range;

// The nearest whole number, ties to even: one instruction, on the GPU as on the CPU.
IREVRNN_INLINE int64_t nearest(float x) { return ::llrintf(saturate(x, cut_off)); }
IREVRNN_INLINE int64_t nearest(double x) { return ::llrint(saturate(x, cut_off)); }

template <class V>
IREVRNN_INLINE auto fixed_of(const V& x) { return nearest(x * broadcast<V>(units)); }

}  // namespace irevrnn
