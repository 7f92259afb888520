// The bits that lanes forget, on a stack of 32-bit words, and what puts them there and takes them back.
#pragma once

#include "decay.h"

namespace irevrnn {

constexpr int word_bits = 32;

// The bits on top of the words, fewer than a word between two calls. The last that was pushed is the lowest. When they are
// too many, the lowest word of them goes to the stack, and comes back as soon as more are asked for than are left here:
// the second undoes the first, as a pop asks for as many as its push brought.
struct Tail {
  uint64_t bits = 0;
  int count = 0;

  // In memory a 1 stands before the bits. Anything may be there if it was tampered with.
  static IREVRNN_INLINE Tail of(int64_t number) {
    Tail tail;
    while (tail.count < word_bits - 1 && number >> (tail.count + 1) != 0) ++tail.count;
    tail.bits = static_cast<uint64_t>(number) & ((uint64_t{1} << tail.count) - 1);
    return tail;
  }
  IREVRNN_INLINE int64_t number() const { return static_cast<int64_t>(uint64_t{1} << count | bits); }

  // Up to 32 bits. Returns whether `word` has to go to the stack.
  IREVRNN_INLINE bool push(uint32_t value, int n, uint32_t& word) {
    bits = bits << n | value;
    count += n;
    word = static_cast<uint32_t>(bits);
    const bool full = count >= word_bits;
    bits = full ? bits >> word_bits : bits;
    count -= full ? word_bits : 0;
    return full;
  }
  IREVRNN_INLINE void refill(uint32_t word) {
    bits = bits << word_bits | word;
    count += word_bits;
  }
  IREVRNN_INLINE uint32_t pop(int n) {
    const uint64_t value = bits & ((uint64_t{1} << n) - 1);
    bits >>= n;
    count -= n;
    return static_cast<uint32_t>(value);
  }
};

// A stack with room for all that is pushed and words or zeros for all that is popped (word_stack.h): nothing here looks
// where it ends, nor branches on whether there is a word to move. How often there is one depends on the data; each branch
// that was mispredicted stopped all lanes in flight.
struct Bits {
  uint32_t* top;
  Tail tail;

  IREVRNN_INLINE void push(uint32_t value, int n) {
    uint32_t word;
    const bool full = tail.push(value, n, word);
    *top = word;
    top += full;
  }
  IREVRNN_INLINE uint32_t pop(int n) {
    const bool needed = tail.count < n;
    top -= needed;
    const uint64_t refilled = tail.bits << word_bits | *top;
    tail.bits = needed ? refilled : tail.bits;
    tail.count += needed ? word_bits : 0;
    return tail.pop(n);
  }
};

// Words that the steps of a lane fill at most, one each: a decay has 30 bits, and a leak 2 more, or relu a number in range,
// or c as many as h.
constexpr int most_words(Activation g, bool c_decays) { return c_decays || g == Activation::relu ? 2 : 1; }

constexpr int bits_of_number = 30;  // of one in range, its sign apart

// relu: what it discards, -y >= 0.
template <class Bits>
IREVRNN_INLINE int32_t forget_negative(int32_t y, Bits& bits) {
  if (y <= 0) bits.push(minus(0, y), bits_of_number);
  return y <= 0 ? 0 : y;
}

template <class Bits>
IREVRNN_INLINE int32_t recall_negative(int32_t h, Bits& bits) {
  return h <= 0 ? minus(0, static_cast<int32_t>(bits.pop(bits_of_number))) : h;
}

template <class Bits>
IREVRNN_INLINE int32_t forget_output(Activation g, int32_t y, Bits& bits) {
  if (g == Activation::leaky_relu && y < 0) {  // the bits that are shifted out are stored
    bits.push(y & ((1 << slope_bits) - 1), slope_bits);
    return y >> slope_bits;
  }
  if (g == Activation::relu) return forget_negative(y, bits);
  return y;
}

template <class Bits>
IREVRNN_INLINE int32_t recall_output(Activation g, int32_t h, Bits& bits) {
  if (g == Activation::leaky_relu && h < 0) {
    return static_cast<int32_t>(static_cast<uint32_t>(h) << slope_bits | bits.pop(slope_bits));
  }
  if (g == Activation::relu) return recall_negative(h, bits);
  return h;
}

// A reset stores both states whole.
constexpr int words_of_reset = 2;

template <class Bits>
IREVRNN_INLINE void forget_reset(int32_t& h, int32_t& c, Bits& bits) {
  bits.push(static_cast<uint32_t>(h), word_bits);
  bits.push(static_cast<uint32_t>(c), word_bits);
  h = c = 0;
}

// Both are 0 here. Where they are not, something else was run back than had run: what is left of it, combined with the
// states instead of overwritten, shows in the hash of those where the chunk begins.
template <class Bits>
IREVRNN_INLINE void recall_reset(int32_t& h, int32_t& c, Bits& bits) {
  c ^= static_cast<int32_t>(bits.pop(word_bits));
  h ^= static_cast<int32_t>(bits.pop(word_bits));
}

}  // namespace irevrnn
