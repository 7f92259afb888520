// The change of a lane's scales before a step: coarser where a number would leave the range; finer again where all numbers
// are small; and as the input asks for where a lane begins.
//
// A change is noted on the bit stack, with the bits that are lost and the place of the change before it: so a pass without
// one stores nothing, and the inverse knows where the next one comes. Each bit stack has the place of its last change.
#pragma once

#include "bit_stack.h"
#include "fixed_scan.h"

namespace irevrnn {

constexpr int32_t small = int32_t{1} << 20;  // quanta that all numbers are below where a scale may be finer
// Of the largest number, then: where a lane begins, its states will grow; later, they have been larger.
constexpr int bits_at_first = 20, bits_again = 24;
constexpr int few_bits = 4;  // for which a change that is stored is not worth it

// By how many bits a scale becomes coarser at once: back to the usual one by few changes.
IREVRNN_INLINE int coarser_by(int32_t bits) { return bits > usual_bits ? smaller(6, bits - usual_bits) : 2; }

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

// Of a step of the whole sequence and a lane; 1 where there was no change.
IREVRNN_INLINE int64_t place_of(int64_t step, int64_t lane) { return (step + 1) << 32 | lane; }
IREVRNN_INLINE int64_t step_of_place(int64_t place) { return (place >> 32) - 1; }
IREVRNN_INLINE int64_t lane_of_place(int64_t place) { return place & 0xffffffff; }

IREVRNN_INLINE int32_t shifted(int32_t x, int by) {
  return by >= 0 ? static_cast<int32_t>(static_cast<uint32_t>(x) << smaller(by, 31)) : x >> smaller(-by, 31);
}
// How many bits this loses, which ones, and how it is undone.
IREVRNN_INLINE int count_lost(int by) { return smaller(larger(-by, 0), word_bits); }
IREVRNN_INLINE uint32_t lost_bits(int32_t x, int by) {
  const int count = count_lost(by);
  return static_cast<uint32_t>(x) & (count == word_bits ? ~0u : (1u << count) - 1);
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
  s.bits.push(lost_bits(s.x.h, by.h), count_lost(by.h));
  s.bits.push(lost_bits(s.x.c, by.c), count_lost(by.c));
  s.bits.push(static_cast<uint32_t>(s.place >> 32), word_bits);
  s.bits.push(static_cast<uint32_t>(s.place), word_bits);
  s.bits.push((by.h & 0xff) << 8 | (by.c & 0xff), 16);
  return {rescaled(s.x, by), place, s.bits};
}

template <class Bits>
IREVRNN_RARE Stacked<Bits> pop_rescaling(Stacked<Bits> s) {
  const uint32_t both = s.bits.pop(16);
  const Rescaling by{static_cast<int8_t>(both >> 8), static_cast<int8_t>(both & 0xff)};
  const uint64_t low = s.bits.pop(word_bits), high = s.bits.pop(word_bits);
  const uint32_t lost_c = s.bits.pop(count_lost(by.c)), lost_h = s.bits.pop(count_lost(by.h));
  const LaneState x{shifted_back(s.x.h, by.h, lost_h), shifted_back(s.x.c, by.c, lost_c), s.x.bits_h - by.h,
                    s.x.bits_c - by.c};
  return {x, static_cast<int64_t>(high << 32 | low), s.bits};
}

// The largest |z| of a lane from step `begin` on, or a number that is not small in this scale.
template <class T>
IREVRNN_INLINE float largest_input(const FixedPass<T>& s, int64_t lane, int64_t begin, int64_t end, float largest,
                                   float count) {
  for (int64_t t = begin; t < end && largest * count < small; ++t) {
    largest = larger(largest, absolute(static_cast<float>(s.z[s.row(t) + lane])));  // last, as a NaN stays
  }
  return largest;
}

// The bits of a scale in which a number has that many.
IREVRNN_INLINE int bits_for(float number, int bits) {
  int exponent = 0;
  ::frexp(number, &exponent);
  return bits - exponent;
}

IREVRNN_INLINE bool is_coarse(int32_t bits_h, int32_t bits_c) { return bits_h < usual_bits || bits_c < usual_bits; }

// To the usual scales, or finer ones where all of the lane's input in this pass is small. A change that has to be undone
// is not worth it for a few bits.
template <class T>
IREVRNN_RARE Rescaling to_first_scales(const FixedPass<T>& s, LaneState x, int64_t lane, int64_t t, bool is_first) {
  const float count = power_of_two(usual_bits);
  const float largest = largest_input(s, lane, t, s.length(lane), 0.0f, count);
  const bool fine = largest * count < small && largest > 0;
  const int bits = fine ? smaller(bits_for(largest, bits_at_first), most_bits) : usual_bits;
  const Rescaling by{bits - x.bits_h, bits - x.bits_c};
  const auto few = [](int change) { return change < few_bits && change > -few_bits; };
  if (!is_first && few(by.h) && few(by.c) && !is_coarse(x.bits_h, x.bits_c)) return {};
  return by;
}

// Gives a lane that begins at step t of a pass, where its states are 0 and its scales may be anything, its first scales: by
// rescale(change) where that has to be undone, as it has not where the inverse ends with states of 0.
template <class T, class Rescale>
IREVRNN_INLINE void begin_lane(const FixedPass<T>& s, LaneState& x, int64_t lane, int64_t t, bool reset,
                               const Rescale& rescale) {
  if (!reset && (t > 0 || (x.h | x.c) != 0)) return;
  const bool usual = x.bits_h == usual_bits && x.bits_c == usual_bits;
  if (usual && !(absolute(s.z[s.row(t) + lane]) * power_of_two(usual_bits) < small)) return;
  const bool first = s.first_step + t == 0 && !reset;
  const Rescaling by = to_first_scales(s, x, lane, t, first);
  if (first) {
    x = rescaled(x, by);
  } else {
    rescale(by);
  }
}

// Of a lane that is coarse, before a block of steps [begin, end): to finer scales, up to the usual ones, if its numbers in
// the block are small.
template <class T>
IREVRNN_RARE Rescaling to_finer_scales(const FixedPass<T>& s, LaneState x, int64_t lane, int64_t begin, int64_t end) {
  const Scale<float> of_h = scale_of<float>(x.bits_h), of_c = scale_of<float>(x.bits_c);
  const float states = larger(absolute(of_h.values_of(x.h)), absolute(of_c.values_of(x.c)));
  const float largest = largest_input(s, lane, begin, end, states, smaller(of_h.count, of_c.count));
  const auto more = [&](int32_t has, const Scale<float>& scale) {
    const bool may_be_finer = largest * scale.count < small;
    return may_be_finer ? larger(smaller(bits_for(largest, bits_again), usual_bits) - has, 0) : 0;
  };
  return {more(x.bits_h, of_h), more(x.bits_c, of_c)};
}

}  // namespace irevrnn
