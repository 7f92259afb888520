// What is forgotten, in 16-bit words on a stack, and the arithmetic that puts it there and takes it back
// (paper, eq:decay). Written for L = int64_t, one lane, and L = Half, a vector of lanes.
//
// Each lane has a state s, an asymmetric numeral system (Duda, 2013) in base n * 2^m: information goes
// in by s * base + digit and comes out by division, and a word moves to the stack only when 16 bits have
// piled up. As n * 2^m is divisible by every base in use, s alone tells whether a word was moved, and
// no flag is kept.
#pragma once

#include <vector>

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

// floor(x / n) and x mod n for |x| < 2^52: one multiplication, right but for the last place.
template <class L>
IREVRNN_INLINE L divide(L x, const Decay<L>& d, L& remainder) {
  L q = to_long(to_double(x) * d.inverse);
  L r = x - q * d.n;
  const auto below = r < 0;
  q = below ? q - 1 : q;
  r = below ? r + d.n : r;
  const auto above = r >= d.n;
  q = above ? q + 1 : q;
  remainder = above ? r - d.n : r;
  return q;
}

// The words of one stream of lanes.
class Words {
 public:
  void start(const uint16_t* words, int64_t count) { words_.assign(words, words + count); }
  void clear() { words_.clear(); }
  const std::vector<uint16_t>& all() const { return words_; }
  bool ran_dry() const { return ran_dry_; }

  IREVRNN_INLINE void push(bool which, int64_t word) {
    if (which) words_.push_back(static_cast<uint16_t>(word));
  }
  IREVRNN_INLINE int64_t pop(bool which) {
    if (!which) return 0;
    if (words_.empty()) {
      ran_dry_ = true;  // the buffer was tampered with; the caller's checks say where
      return 0;
    }
    const uint16_t word = words_.back();
    words_.pop_back();
    return word;
  }
#if !defined(__CUDACC__)
  IREVRNN_INLINE void push(Half which, Half word) {
    unsigned bits = bits_of(which);
    if (__builtin_expect(bits == 0, 1)) return;
    int64_t lanes[half_lanes];
    memcpy(lanes, &word, sizeof word);
    for (; bits != 0; bits &= bits - 1) push(true, lanes[__builtin_ctz(bits)]);
  }
  IREVRNN_INLINE Half pop(Half which) {
    unsigned bits = bits_of(which);
    Half word{};
    if (__builtin_expect(bits == 0, 1)) return word;
    int64_t lanes[half_lanes] = {};
    while (bits != 0) {  // last lane first, the reverse of push
      const int lane = 31 - __builtin_clz(bits);
      lanes[lane] = pop(true);
      bits ^= 1u << lane;
    }
    memcpy(&word, lanes, sizeof word);
    return word;
  }
#endif

 private:
  std::vector<uint16_t> words_;
  bool ran_dry_ = false;
};

// The same for |x| < 2^60, which a double does not hold exactly: the first quotient is some hundreds off,
// and what it leaves over is divided once more.
template <class L>
IREVRNN_INLINE L divide_large(L x, const Decay<L>& d, L& remainder) {
  const L rough = to_long(to_double(x) * d.inverse);
  return rough + divide(x - rough * d.n, d, remainder);
}

// A fresh state, which holds no information.
template <class L>
IREVRNN_INLINE L empty_state(const Decay<L>& d) { return d.n << state_bits; }

// The decayed h. Its low 16 bits go to the state, and a digit in base n comes back from there to take
// their place: the net cost is -log2(n / 2^16) bits, the entropy that is forgotten.
template <class L>
IREVRNN_INLINE L forget(L h, L& s, const Decay<L>& d, Words& words) {
  L digit;
  const L q = divide((s << decay_bits) | (h & (decay_one - 1)), d, digit);
  const auto full = q >= (d.n << (state_bits + 16));
  words.push(full, q);
  s = full ? q >> 16 : q;
  const L p = (h >> decay_bits) * d.n + digit;
  return (p ^ d.negative) - d.negative;
}

template <class L>
IREVRNN_INLINE L recall(L p, L& s, const Decay<L>& d, Words& words) {
  p = (p ^ d.negative) - d.negative;
  const auto moved = s < all_lanes(s, int64_t{1} << (state_bits + decay_bits));
  // The word first: the digit may lie in it.
  const L full = moved ? (s << 16) | words.pop(moved) : s;
  L digit;
  const L high = divide_large(p, d, digit);
  const L joined = full * d.n + digit;
  s = joined >> decay_bits;
  return (high << decay_bits) | (joined & (decay_one - 1));
}

// leaky_relu of slope 2^-slope_bits: the bits shifted out where y is negative go to the state.
template <class L>
IREVRNN_INLINE L forget_leak(L y, L& s, const Decay<L>& d, Words& words) {
  const auto negative = y < 0;
  const L q = (s << slope_bits) | (y & ((1 << slope_bits) - 1));
  const auto full = negative & (q >= (d.n << (state_bits + 16)));
  words.push(full, q);
  s = negative ? (full ? q >> 16 : q) : s;
  return negative ? y >> slope_bits : y;
}

template <class L>
IREVRNN_INLINE L recall_leak(L h, L& s, const Decay<L>& d, Words& words) {
  const auto negative = h < 0;
  const auto moved = negative & (s < (d.n << (state_bits + slope_bits)));
  const L full = moved ? (s << 16) | words.pop(moved) : s;
  s = negative ? full >> slope_bits : full;
  return negative ? (h << slope_bits) | (full & ((1 << slope_bits) - 1)) : h;
}

// relu: what it discards, -y >= 0, goes to the stack in groups of 15 bits. The group pushed first has
// its top bit clear: popped last, it ends the number.
IREVRNN_INLINE void push_number(Words& words, int64_t x) {
  words.push(true, x & 0x7fff);
  for (x >>= 15; x != 0; x >>= 15) words.push(true, (x & 0x7fff) | 0x8000);
}

IREVRNN_INLINE int64_t pop_number(Words& words) {
  int64_t x = 0, word;
  do {
    word = words.pop(true);
    x = (x << 15) | (word & 0x7fff);
  } while (word & 0x8000);
  return x;
}

IREVRNN_INLINE int64_t forget_negative(int64_t y, bool lane_exists, Words& words) {
  if (y <= 0 && lane_exists) push_number(words, -y);
  return y <= 0 ? 0 : y;
}

IREVRNN_INLINE int64_t recall_negative(int64_t h, bool lane_exists, Words& words) {
  return h == 0 && lane_exists ? -pop_number(words) : h;
}

#if !defined(__CUDACC__)
IREVRNN_INLINE Half forget_negative(Half y, Half lane_exists, Words& words) {
  for (unsigned bits = bits_of((y <= 0) & lane_exists); bits != 0; bits &= bits - 1) {
    push_number(words, -y[__builtin_ctz(bits)]);
  }
  return y <= 0 ? Half{} : y;
}

IREVRNN_INLINE Half recall_negative(Half h, Half lane_exists, Words& words) {
  unsigned bits = bits_of((h == 0) & lane_exists);
  while (bits != 0) {
    const int lane = 31 - __builtin_clz(bits);
    h[lane] = -pop_number(words);
    bits ^= 1u << lane;
  }
  return h;
}
#endif

}  // namespace irevrnn
