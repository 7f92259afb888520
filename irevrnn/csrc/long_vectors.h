// Vectors of 64-bit integers: half of those that go with a vector of floats (longs.h).
#pragma once

#include "vectors.h"

namespace irevrnn {

constexpr int half_lanes = vector_bytes / sizeof(int64_t);

typedef int64_t Half __attribute__((vector_size(vector_bytes)));
typedef uint64_t UnsignedHalf __attribute__((vector_size(vector_bytes)));
typedef double HalfDouble __attribute__((vector_size(vector_bytes)));
typedef float HalfFloat __attribute__((vector_size(vector_bytes / 2)));

// Like plus and minus of one lane (fixed_point.h).
IREVRNN_INLINE Half plus(Half x, Half y) { return (Half)((UnsignedHalf)x + (UnsignedHalf)y); }
IREVRNN_INLINE Half minus(Half x, Half y) { return (Half)((UnsignedHalf)x - (UnsignedHalf)y); }

#if defined(__AVX2__) && !defined(__AVX512F__)
// AVX2 converts no 64-bit integers, but those of up to 52 bits lie in the fraction of a double of the right
// size.
constexpr double two_52 = 0x1p52, two_84_and_63 = 0x1p84 + 0x1p63;

// Both halves of the integer become doubles, 2^52 + low and 2^84 + 2^63 + 2^32 high, whose sum rounds once.
IREVRNN_INLINE HalfDouble to_double(Half x) {
  const __m256i low = _mm256_blend_epi32((__m256i)x, (__m256i)(HalfDouble{} + two_52), 0b10101010);
  const __m256i high = _mm256_xor_si256(_mm256_srli_epi64((__m256i)x, 32), (__m256i)(HalfDouble{} + two_84_and_63));
  return ((HalfDouble)high - (two_84_and_63 + two_52)) + (HalfDouble)low;
}

// Whole numbers below 2^51.
IREVRNN_INLINE Half whole_to_long(HalfDouble x) {
  const HalfDouble magic = HalfDouble{} + 1.5 * two_52;
  return minus((Half)(x + magic), (Half)magic);
}

// Towards zero; what lies beyond 2^51 has no meaning.
IREVRNN_INLINE Half to_long(HalfDouble x) {
  return whole_to_long(_mm256_round_pd(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
}

// n is from 0 to 2^32.
IREVRNN_INLINE Half times(Half x, Half n) {
  const __m256i low = _mm256_mul_epu32((__m256i)x, (__m256i)n);
  const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)x, 32), (__m256i)n);
  return (Half)_mm256_add_epi64(low, _mm256_slli_epi64(high, 32));
}
#else
IREVRNN_INLINE HalfDouble to_double(Half x) { return __builtin_convertvector(x, HalfDouble); }
IREVRNN_INLINE Half to_long(HalfDouble x) { return __builtin_convertvector(x, Half); }
IREVRNN_INLINE Half times(Half x, Half n) { return (Half)((UnsignedHalf)x * (UnsignedHalf)n); }
#endif
IREVRNN_INLINE void store_half(int64_t* to, Half x) { memcpy(to, &x, sizeof x); }

IREVRNN_INLINE Half load_half(const int64_t* from) {
  Half x;
  memcpy(&x, from, sizeof x);
  return x;
}

IREVRNN_INLINE Half all_lanes(Half, int64_t x) { return x - Half{}; }

// Some of the lanes, as a comparison chooses them. Where the processor has registers for that they are
// used from the comparison on: the compiler would go through a vector of -1 and 0.
#if defined(__AVX512F__)
struct Lanes {
  __mmask8 bits;
};
IREVRNN_INLINE Lanes less(Half x, Half y) { return {_mm512_cmplt_epi64_mask((__m512i)x, (__m512i)y)}; }
IREVRNN_INLINE Lanes operator&(Lanes x, Lanes y) { return {static_cast<__mmask8>(x.bits & y.bits)}; }
IREVRNN_INLINE Lanes operator|(Lanes x, Lanes y) { return {static_cast<__mmask8>(x.bits | y.bits)}; }
IREVRNN_INLINE unsigned bits_of(Lanes which) { return which.bits; }
IREVRNN_INLINE Half choose(Lanes which, Half x, Half y) {
  return (Half)_mm512_mask_blend_epi64(which.bits, (__m512i)y, (__m512i)x);
}
#else
typedef Half Lanes;
IREVRNN_INLINE Lanes less(Half x, Half y) { return x < y; }
IREVRNN_INLINE Half choose(Lanes which, Half x, Half y) {
#if defined(__AVX__)
  return (Half)_mm256_blendv_pd((__m256d)y, (__m256d)x, (__m256d)which);
#else
  return which ? x : y;
#endif
}
IREVRNN_INLINE unsigned bits_of(Lanes which) {
#if defined(__AVX__)
  return _mm256_movemask_pd((__m256d)which);
#else
  unsigned bits = 0;
  for (int i = 0; i < half_lanes; ++i) bits |= (which[i] != 0) << i;
  return bits;
#endif
}
#endif

// Where |x| >= limit.
IREVRNN_INLINE Lanes beyond(Half x, int64_t limit) {
#if defined(__AVX512F__)
  const Half shifted = plus(x, all_lanes(x, limit - 1));  // without a sign, from 0 to 2 * limit - 2 within
  return {_mm512_cmpgt_epu64_mask((__m512i)shifted, (__m512i)all_lanes(x, 2 * (limit - 1)))};
#else
  const Half last = all_lanes(x, limit - 1);
  return less(last, x) | less(x, -last);
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For each choice of four lanes the bytes of four words, to move the chosen ones together, and back to their lanes.
struct WordMoves {
  alignas(16) uint8_t together[16][16], apart[16][16];
  constexpr WordMoves() : together{}, apart{} {
    for (int chosen = 0; chosen < 16; ++chosen) {
      for (int byte = 0; byte < 16; ++byte) together[chosen][byte] = apart[chosen][byte] = 0x80;  // becomes 0
      for (int lane = 0, count = 0; lane < 4; ++lane) {
        if ((chosen >> lane & 1) == 0) continue;
        for (int byte = 0; byte < 2; ++byte) {
          together[chosen][2 * count + byte] = static_cast<uint8_t>(2 * lane + byte);
          apart[chosen][2 * lane + byte] = static_cast<uint8_t>(2 * count + byte);
        }
        ++count;
      }
    }
  }
};
inline constexpr WordMoves word_moves;

IREVRNN_INLINE __m128i move_words(__m128i words, const uint8_t (&move)[16]) {
  return _mm_shuffle_epi8(words, _mm_load_si128(reinterpret_cast<const __m128i*>(move)));
}
#endif

// The low 16 bits of the chosen lanes, in their order; writes half_lanes words, the last without meaning.
IREVRNN_INLINE void store_chosen(uint16_t* to, unsigned chosen, Half x) {
#if defined(__AVX512F__)
  const __m128i words = _mm512_cvtepi64_epi16(_mm512_maskz_compress_epi64(chosen, (__m512i)x));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words);
#elif defined(__AVX2__)
  const __m256i low = _mm256_and_si256((__m256i)x, _mm256_set1_epi64x(0xffff));
  const __m128i pairs = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  const __m128i words = _mm_packus_epi32(pairs, pairs);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), move_words(words, word_moves.together[chosen]));
#else
  if (__builtin_expect(chosen == 0, 1)) return;
  int64_t lanes[half_lanes];
  memcpy(lanes, &x, sizeof x);
  for (; chosen != 0; chosen &= chosen - 1) *to++ = static_cast<uint16_t>(lanes[__builtin_ctz(chosen)]);
#endif
}

// Words back into the chosen lanes, 0 into the others; may read half_lanes words.
IREVRNN_INLINE Half load_chosen(const uint16_t* from, unsigned chosen) {
#if defined(__AVX512F__)
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Half)_mm512_maskz_expand_epi64(chosen, _mm512_cvtepu16_epi64(words));
#elif defined(__AVX2__)
  const __m128i words = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Half)_mm256_cvtepu16_epi64(move_words(words, word_moves.apart[chosen]));
#else
  Half x{};
  if (__builtin_expect(chosen == 0, 1)) return x;
  int64_t lanes[half_lanes] = {};
  for (; chosen != 0; chosen &= chosen - 1) lanes[__builtin_ctz(chosen)] = *from++;
  memcpy(&x, lanes, sizeof x);
  return x;
#endif
}

}  // namespace irevrnn
