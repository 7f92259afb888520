// The decay in fixed point, undone exactly (paper, eq:decay).
//
// |u| is 2^-k (1 - m / 2^32) with 0 <= m < 2^31. The k low bits of h are shifted out and stored. From what is left, x, the
// decay takes x m / 2^32 away, rounded up or down by an offset r that goes from step to step through the numbers below
// 2^32: so the state neither drifts nor comes to rest where it does not decay any more. As m is less than half of 2^32, at
// most two neighbours x end up at one number: where two do, a single bit says which of them it was. All else, the inverse
// finds out by division.
#pragma once

#include "fixed_point.h"

namespace irevrnn {

constexpr int longest_shift = 29;  // a number in range has no more bits

constexpr float above_one = 0x1.000002p0f;  // the float next to 1: decays are smaller, and no NaN is

// One lane's decay.
struct Decay {
  int32_t m, shift, sign;  // sign is -1 where the recurrent weight is negative, else 0
  double inverse;          // 1 / (1 - m / 2^32)
};

IREVRNN_INLINE Decay decay_of(double u) {
  const double size = absolute(u);
  int exponent = 0;
  double fraction = ::frexp(size, &exponent);  // size = fraction * 2^exponent, from 1 / 2 on and below 1
  int shift = -exponent;
  if (fraction == 0.5) {
    fraction = 1;
    ++shift;
  }
  if (size == 0 || shift > longest_shift) {
    fraction = 1;
    shift = longest_shift;
  }
  const double m = smaller(::rint((1 - fraction) * 0x1p32), 0x1p31 - 1);
  return {static_cast<int32_t>(m), shift, u < 0 ? -1 : 0, 0x1p32 / (0x1p32 - m)};
}

IREVRNN_INLINE int32_t with_sign(int32_t x, int32_t sign) { return minus(x ^ sign, sign); }

// r at a step: multiples of the golden ratio, which are spread evenly.
IREVRNN_INLINE uint32_t offset_of(int64_t step) {
  return 0x80000000u + static_cast<uint32_t>(step) * 0x9e3779b1u;
}

// What is left of x, and which of its neighbours come to the same number.
struct Decayed {
  int32_t value;
  bool with_next, with_previous;
};

IREVRNN_INLINE Decayed decayed(int32_t x, int32_t m, uint32_t r) {
  const int64_t product = int64_t{x} * m + int64_t{r};
  const auto low = static_cast<uint32_t>(product), step = static_cast<uint32_t>(m);
  return {minus(x, static_cast<int32_t>(product >> 32)), low + step < step, low < step};
}

template <class Bits>
IREVRNN_INLINE int32_t forget(int32_t h, const Decay& d, uint32_t r, Bits& bits) {
  if (d.shift > 0) bits.push(h & ((1 << d.shift) - 1), d.shift);
  const Decayed p = decayed(h >> d.shift, d.m, r);
  if (p.with_next || p.with_previous) bits.push(p.with_previous, 1);
  return with_sign(p.value, d.sign);
}

template <class Bits>
IREVRNN_INLINE int32_t recall(int32_t p, const Decay& d, uint32_t r, Bits& bits) {
  p = with_sign(p, d.sign);
  // The larger of the numbers that come to p, or one beside it.
  auto x = static_cast<int32_t>(static_cast<int64_t>(::floor((p + r * 0x1p-32) * d.inverse)));
  Decayed there = decayed(x, d.m, r);
  if (there.value > p) x = minus(x, 1);
  if (there.value < p || (there.value == p && there.with_next)) x = plus(x, 1);
  if (decayed(x, d.m, r).with_previous && bits.pop(1) == 0) x = minus(x, 1);
  return d.shift > 0 ? static_cast<int32_t>(static_cast<uint32_t>(x) << d.shift | bits.pop(d.shift)) : x;
}

}  // namespace irevrnn
