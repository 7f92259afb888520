// The bits that a lane forgets, in 16-bit words on a stack, and the arithmetic that puts them there and takes them back
// (paper, eq:decay). Written for L = int64_t, one lane, and L = Longs, a vector of lanes.
//
// Each lane has a state s, an asymmetric numeral system (Duda, 2013) in base n * 2^m: information goes
// in by s * base + digit and comes out by division, and a word moves to the stack only when 16 bits have
// piled up. As n * 2^m is divisible by every base in use, s alone tells whether a word was moved, and
// no flag is kept.
//
// From states or words that were tampered with anything may come, so sums and products wrap around.
#pragma once

#include "fixed_point.h"

namespace irevrnn {

constexpr int state_bits = 4;  // m: s stays below 2^52 while 16 bits are appended, exact in a double

// Decay by n / 2^16, the sign of the recurrent weight apart.
template <class L>
struct Decay {
  L n;
  Doubles<L> inverse;  // 1 / n
  L negative;          // -1 where the recurrent weight is negative, else 0
};

// floor(x / n) and x mod n for 0 <= x < 2^52. The quotient is never too large: before its
// fraction is cut off it is at most
// x / n * (1 + 2^-53)^2, its own rounding and that of 1 / n, which adds less than the 1 / n that is between
// x / n and the next whole number. It may be one too small, where n divides x.
template <class L>
IREVRNN_INLINE L divide(L x, const Decay<L>& d, L& remainder) {
  const L q = to_long(to_double(x) * d.inverse);
  const L r = minus(x, times(q, d.n));
  const auto right = less(r, d.n);
  remainder = choose(right, r, minus(r, d.n));
  return choose(right, q, plus(q, all_lanes(q, 1)));
}

// The same for |x| < 2^60, which a double does not hold exactly: the first quotient is less than 2^9 off.
// Lowered by 2^10 it leaves something positive over, which is divided once more.
template <class L>
IREVRNN_INLINE L divide_large(L x, const Decay<L>& d, L& remainder) {
  const L rough = minus(to_long(to_double(x) * d.inverse), all_lanes(x, 1024));
  return plus(rough, divide(minus(x, times(rough, d.n)), d, remainder));
}

#if !defined(__CUDACC__)
// The top of a stack of words, with room for all that is pushed and words or zeros for all that is popped
// (word_stack.h): nothing here looks where it ends, nor branches on whether there is a word to move. How
// often there is one depends on the data; each branch that was mispredicted stopped all lanes in flight.
struct Words {
  uint16_t* top;

  IREVRNN_INLINE void push(bool which, int64_t word) {
    *top = static_cast<uint16_t>(word);
    top += which;
  }
  IREVRNN_INLINE int64_t pop(bool which) {
    top -= which;
    return which ? *top : 0;
  }
  IREVRNN_INLINE void push(const LanesOfLongs& which, const Longs& word) { top += store_chosen(top, which, word); }
  // The last lane's word was pushed last.
  IREVRNN_INLINE Longs pop(const LanesOfLongs& which) { return load_chosen(top, which); }
};
#endif

// The words that a step of a lane pushes at most: one for the decay and for a leak, and for relu a number
// of 57 bits, as it is in range, in groups of 15.
constexpr int most_words(Activation g) {
  return 1 + (g == Activation::relu ? 4 : g == Activation::leaky_relu ? 1 : 0);
}

// A state that carries no information.
template <class L>
IREVRNN_INLINE L empty_state(const Decay<L>& d) { return d.n << state_bits; }

// The decayed h. Its low 16 bits go to the state, and a digit in base n comes back from there to take
// their place: the net cost is -log2(n / 2^16) bits, the entropy that is forgotten.
template <class L, class Stack>
IREVRNN_INLINE L forget(L h, L& s, const Decay<L>& d, Stack& words) {
  L digit;
  const L q = divide((s << decay_bits) | (h & (decay_one - 1)), d, digit);
  const auto full = less((d.n << (state_bits + 16)) - 1, q);
  words.push(full, q);
  s = choose(full, q >> 16, q);
  const L p = plus(times(h >> decay_bits, d.n), digit);
  return minus(p ^ d.negative, d.negative);
}

template <class L, class Stack>
IREVRNN_INLINE L recall(L p, L& s, const Decay<L>& d, Stack& words) {
  p = minus(p ^ d.negative, d.negative);
  const auto moved = less(s, all_lanes(s, int64_t{1} << (state_bits + decay_bits)));
  // The word first: the digit may lie in it.
  const L full = choose(moved, (s << 16) | words.pop(moved), s);
  L digit;
  const L high = divide_large(p, d, digit);
  const L joined = plus(times(full, d.n), digit);
  s = joined >> decay_bits;
  return (high << decay_bits) | (joined & (decay_one - 1));
}

// leaky_relu of slope 2^-slope_bits: the bits shifted out where y is negative go to the state.
template <class L, class Stack>
IREVRNN_INLINE L forget_leak(L y, L& s, const Decay<L>& d, Stack& words) {
  const auto negative = less(y, L{});
  const L q = choose(negative, (s << slope_bits) | (y & ((1 << slope_bits) - 1)), s);
  const auto full = less((d.n << (state_bits + 16)) - 1, q);  // s alone is not
  words.push(full, q);
  s = choose(full, q >> 16, q);
  return choose(negative, y >> slope_bits, y);
}

template <class L, class Stack>
IREVRNN_INLINE L recall_leak(L h, L& s, const Decay<L>& d, Stack& words) {
  const auto negative = less(h, L{});
  const auto moved = negative & less(s, d.n << (state_bits + slope_bits));
  const L full = choose(moved, (s << 16) | words.pop(moved), s);
  s = choose(negative, full >> slope_bits, full);
  return choose(negative, (h << slope_bits) | (full & ((1 << slope_bits) - 1)), h);
}

// relu: what it discards, -y >= 0, goes to the stack in groups of 15 bits. The group pushed first has
// its top bit clear: popped last, it ends the number.
template <class Stack>
IREVRNN_INLINE void push_number(Stack& words, int64_t x) {
  words.push(true, x & 0x7fff);
  for (x >>= 15; x != 0; x >>= 15) words.push(true, (x & 0x7fff) | 0x8000);
}

template <class Stack>
IREVRNN_INLINE int64_t pop_number(Stack& words) {
  int64_t x = 0, word;
  do {
    word = words.pop(true);
    x = (x << 15) | (word & 0x7fff);
  } while (word & 0x8000);
  return x;
}

// A state that a reset sets to 0, with all of its bits.
constexpr int words_of_reset = 8;  // h and c

template <class Stack>
IREVRNN_INLINE void push_state(Stack& words, int64_t x) {
  for (int i = 0; i < 4; ++i) words.push(true, x >> 16 * i);
}

template <class Stack>
IREVRNN_INLINE int64_t pop_state(Stack& words) {
  uint64_t x = 0;
  for (int i = 0; i < 4; ++i) x = x << 16 | static_cast<uint64_t>(words.pop(true));
  return static_cast<int64_t>(x);
}

template <class Stack>
IREVRNN_INLINE void forget_reset(int64_t& h, int64_t& c, Stack& words) {
  push_state(words, h);
  push_state(words, c);
  h = c = 0;
}

template <class Stack>
IREVRNN_INLINE void recall_reset(int64_t& h, int64_t& c, Stack& words) {
  c = pop_state(words);
  h = pop_state(words);
}

template <class Stack>
IREVRNN_INLINE int64_t forget_negative(int64_t y, Stack& words) {
  if (y <= 0) push_number(words, minus(0, y));
  return y <= 0 ? 0 : y;
}

template <class Stack>
IREVRNN_INLINE int64_t recall_negative(int64_t h, Stack& words) {
  return h <= 0 ? minus(0, pop_number(words)) : h;
}

#if !defined(__CUDACC__)
IREVRNN_INLINE Half forget_negative(Half y, Lanes lane_exists, Words& words) {
  const Lanes positive = less(Half{}, y);
  for (unsigned bits = bits_of(lane_exists) & ~bits_of(positive); bits != 0; bits &= bits - 1) {
    push_number(words, minus(0, y[__builtin_ctz(bits)]));
  }
  return choose(positive, y, Half{});
}

IREVRNN_INLINE Half recall_negative(Half h, Lanes lane_exists, Words& words) {
  unsigned bits = bits_of(lane_exists) & ~bits_of(less(Half{}, h));
  while (bits != 0) {
    const int lane = 31 - __builtin_clz(bits);
    h[lane] = minus(0, pop_number(words));
    bits ^= 1u << lane;
  }
  return h;
}

IREVRNN_INLINE Longs forget_negative(const Longs& y, const LanesOfLongs& lane_exists, Words& words) {
  const Half low = forget_negative(y.low, lane_exists.low, words);
  return {low, forget_negative(y.high, lane_exists.high, words)};
}

IREVRNN_INLINE Longs recall_negative(const Longs& h, const LanesOfLongs& lane_exists, Words& words) {
  const Half high = recall_negative(h.high, lane_exists.high, words);
  return {recall_negative(h.low, lane_exists.low, words), high};
}
#endif

}  // namespace irevrnn
