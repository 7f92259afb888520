// The change of a lane's scales before a step: coarser where a number would leave the range; finer where all numbers are
// small and their scale is coarser than the usual one, or where a lane that is 0 begins with small numbers.
//
// A change is noted on the bit stack, with the bits that are lost and the place of the change before it: so a pass without
// one stores nothing, and the inverse knows where the next one comes. Each bit stack has the place of its last change.
#pragma once

#include "bit_stack.h"
#include "fixed_scan.h"

namespace irevrnn {

constexpr int coarser_by = 2;                // bits
constexpr int32_t small = int32_t{1} << 17;  // quanta that all numbers are below where the scale becomes finer
constexpr int bits_when_finer = 24;          // of the largest number, then

// A lane between two steps.
struct LaneState {
  int32_t h, c, bits_h, bits_c;
};

// Bits that the scales of h and c get, or lose where negative.
struct Rescaling {
  int h = 0, c = 0;
  IREVRNN_INLINE explicit operator bool() const { return h != 0 || c != 0; }
};

template <class T>
IREVRNN_INLINE LaneState load_lane(const FixedPass<T>& s, int64_t lane) {
  return {s.h[lane], s.c[lane], s.bits_h[lane], s.bits_c[lane]};
}
template <class T>
IREVRNN_INLINE void store_lane(const FixedPass<T>& s, int64_t lane, const LaneState& x) {
  s.h[lane] = x.h;
  s.c[lane] = x.c;
  s.bits_h[lane] = x.bits_h;
  s.bits_c[lane] = x.bits_c;
}

// Of a step of the whole sequence and a lane. Where there was no change, 1: so it is in the hash of states (ops.cpp).
constexpr int64_t no_place = 1;
IREVRNN_INLINE int64_t place_of(int64_t step, int64_t lane) { return (step + 1) << 32 | lane; }
IREVRNN_INLINE int64_t step_of_place(int64_t place) { return (place >> 32) - 1; }
IREVRNN_INLINE int64_t lane_of_place(int64_t place) { return place & 0xffffffff; }

IREVRNN_INLINE int32_t shifted(int32_t x, int by) {
  return by >= 0 ? static_cast<int32_t>(static_cast<uint32_t>(x) << smaller(by, 31)) : x >> smaller(-by, 31);
}
// The bits that this loses, and how it is undone.
IREVRNN_INLINE uint32_t lost_bits(int32_t x, int by) {
  return by >= 0 ? 0 : static_cast<uint32_t>(x) & (-by > 31 ? ~0u : (1u << -by) - 1);
}
IREVRNN_INLINE int32_t shifted_back(int32_t x, int by, uint32_t lost) {
  return static_cast<int32_t>(-by > 31 ? lost : static_cast<uint32_t>(shifted(x, -by)) | lost);
}

IREVRNN_INLINE LaneState rescaled(const LaneState& x, const Rescaling& by) {
  return {shifted(x.h, by.h), shifted(x.c, by.c), x.bits_h + by.h, x.bits_c + by.c};
}

constexpr int words_of_rescaling = 5;

// What a change acts on. In values, not references: the stack of a lane may then stay in registers.
template <class Bits>
struct Stacked {
  LaneState x;
  int64_t place;  // of the last change
  Bits bits;
};

template <class Bits>
IREVRNN_RARE Stacked<Bits> push_rescaling(Stacked<Bits> s, Rescaling by, int64_t place) {
  const uint32_t words[] = {lost_bits(s.x.h, by.h), lost_bits(s.x.c, by.c), static_cast<uint32_t>(s.place >> 32),
                            static_cast<uint32_t>(s.place)};
  for (uint32_t word : words) s.bits.push(word, word_bits);
  s.bits.push((by.h & 0xff) << 8 | (by.c & 0xff), 16);
  return {rescaled(s.x, by), place, s.bits};
}

template <class Bits>
IREVRNN_RARE Stacked<Bits> pop_rescaling(Stacked<Bits> s) {
  const uint32_t both = s.bits.pop(16);
  uint32_t words[4];
  for (int i = 3; i >= 0; --i) words[i] = s.bits.pop(word_bits);
  const Rescaling by{static_cast<int8_t>(both >> 8), static_cast<int8_t>(both & 0xff)};
  const LaneState x{shifted_back(s.x.h, by.h, words[0]), shifted_back(s.x.c, by.c, words[1]), s.x.bits_h - by.h,
                    s.x.bits_c - by.c};
  return {x, static_cast<int64_t>(uint64_t{words[2]} << 32 | words[3]), s.bits};
}

// After a reset a lane is as a new one.
IREVRNN_INLINE Rescaling to_usual(const LaneState& x) { return {usual_bits - x.bits_h, usual_bits - x.bits_c}; }

// Whether there may be a refinement.
IREVRNN_INLINE bool may_be_finer(int32_t h, int32_t c, int32_t bits_h, int32_t bits_c) {
  return (h | c) == 0 || bits_h < usual_bits || bits_c < usual_bits;
}

// The finer scales of a lane before a block of steps [begin, end), in which its largest number, that of z included, is small.
template <class T>
IREVRNN_RARE Rescaling refinement(const FixedPass<T>& s, LaneState x, int64_t lane, int64_t begin, int64_t end) {
  const Scale<float> of_h = scale_of<float>(x.bits_h), of_c = scale_of<float>(x.bits_c);
  const float count = smaller(of_h.count, of_c.count);
  float largest = larger(absolute(of_h.values_of(x.h)), absolute(of_c.values_of(x.c)));
  for (int64_t t = begin; t < end && largest * count < small; ++t) {
    largest = larger(largest, absolute(static_cast<float>(s.z[s.row(t) + lane])));  // last, as a NaN stays
  }
  if (!(largest * count < small) || largest == 0) return {};
  int exponent = 0;
  ::frexp(largest, &exponent);
  const int bits = smaller(bits_when_finer - exponent, (x.h | x.c) == 0 ? most_bits : usual_bits);
  const auto more = [&](int32_t has, const Scale<float>& scale) {
    return largest * scale.count < small ? larger(bits - has, 0) : 0;
  };
  return {more(x.bits_h, of_h), more(x.bits_c, of_c)};
}

}  // namespace irevrnn
