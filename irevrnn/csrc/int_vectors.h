// Vectors of 32-bit integers, as many as there are floats in a vector; compare fixed_point.h for one lane.
#pragma once

#include "vectors.h"

namespace irevrnn {

typedef int32_t Ints __attribute__((vector_size(vector_bytes)));

// Sums wrap around (fixed_point.h).
IREVRNN_INLINE Ints plus(Ints x, Ints y) { return (Ints)((VectorBits)x + (VectorBits)y); }
IREVRNN_INLINE Ints minus(Ints x, Ints y) { return (Ints)((VectorBits)x - (VectorBits)y); }
IREVRNN_INLINE Ints all_lanes(int32_t x) { return x - Ints{}; }

IREVRNN_INLINE Ints load_ints(const int32_t* from) {
  Ints x;
  memcpy(&x, from, sizeof x);
  return x;
}
IREVRNN_INLINE void store_ints(int32_t* to, Ints x) { memcpy(to, &x, sizeof x); }

// Some of the lanes, as a comparison chooses them. Where the processor has registers for that they are
// used from the comparison on: the compiler would go through a vector of -1 and 0.
#if defined(__AVX512F__)
struct Lanes {
  __mmask16 bits;
};
IREVRNN_INLINE Lanes less(Ints x, Ints y) { return {_mm512_cmplt_epi32_mask((__m512i)x, (__m512i)y)}; }
IREVRNN_INLINE Lanes less_unsigned(Ints x, Ints y) { return {_mm512_cmplt_epu32_mask((__m512i)x, (__m512i)y)}; }
IREVRNN_INLINE Lanes same(Ints x, Ints y) { return {_mm512_cmpeq_epi32_mask((__m512i)x, (__m512i)y)}; }
IREVRNN_INLINE Lanes operator&(Lanes x, Lanes y) { return {static_cast<__mmask16>(x.bits & y.bits)}; }
IREVRNN_INLINE Lanes operator|(Lanes x, Lanes y) { return {static_cast<__mmask16>(x.bits | y.bits)}; }
IREVRNN_INLINE unsigned bits_of(Lanes which) { return which.bits; }
IREVRNN_INLINE Lanes lanes_of(unsigned bits) { return {static_cast<__mmask16>(bits)}; }
IREVRNN_INLINE Ints choose(Lanes which, Ints x, Ints y) {
  return (Ints)_mm512_mask_blend_epi32(which.bits, (__m512i)y, (__m512i)x);
}
#else
typedef Ints Lanes;
IREVRNN_INLINE Lanes less(Ints x, Ints y) { return x < y; }
IREVRNN_INLINE Lanes less_unsigned(Ints x, Ints y) { return (Ints)((VectorBits)x < (VectorBits)y); }
IREVRNN_INLINE Lanes same(Ints x, Ints y) { return x == y; }
IREVRNN_INLINE Ints choose(Lanes which, Ints x, Ints y) { return (which & x) | (~which & y); }
IREVRNN_INLINE unsigned bits_of(Lanes which) {
#if defined(__AVX__)
  return static_cast<unsigned>(_mm256_movemask_ps((__m256)which));
#elif defined(__SSE__)
  return static_cast<unsigned>(_mm_movemask_ps((__m128)which));
#else
  unsigned bits = 0;
  for (int i = 0; i < vector_lanes; ++i) bits |= (which[i] & 1u) << i;
  return bits;
#endif
}
IREVRNN_INLINE Lanes lanes_of(unsigned bits) {
  Ints bit;
  for (int i = 0; i < vector_lanes; ++i) bit[i] = 1 << i;
  return (all_lanes(static_cast<int32_t>(bits)) & bit) == bit;
}
#endif

// Where |x| >= limit.
IREVRNN_INLINE Lanes beyond(Ints x, int32_t limit) {
  const Ints shifted = plus(x, all_lanes(limit - 1));  // without a sign, from 0 to 2 * limit - 2 within
  return less_unsigned(all_lanes(2 * (limit - 1)), shifted);
}

IREVRNN_INLINE Vector floats_of(Ints x) { return __builtin_convertvector(x, Vector); }
IREVRNN_INLINE Vector powers_of_two(Ints n) { return (Vector)((VectorBits)(n + all_lanes(127)) << 23); }

// The nearest integers to what lies within the range of one, ties to even; on x86 the lowest one for all else.
IREVRNN_INLINE Ints nearest_ints(Vector x) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtps_epi32(x);
#elif defined(__AVX__)
  return (Ints)_mm256_cvtps_epi32(x);
#elif defined(__SSE2__)
  return (Ints)_mm_cvtps_epi32(x);
#elif defined(__aarch64__)
  return (Ints)vcvtnq_s32_f32(x);
#else
  Ints y;
  for (int i = 0; i < vector_lanes; ++i) y[i] = static_cast<int32_t>(::lrintf(x[i]));
  return y;
#endif
}

// x * m + r with all of its 64 bits.
struct Product {
  Ints high, low;
};

IREVRNN_INLINE Product multiply(Ints x, Ints m, uint32_t r) {
#if defined(__AVX512F__)
  const __m512i offset = _mm512_set1_epi64(r);
  const __m512i even = _mm512_add_epi64(_mm512_mul_epi32((__m512i)x, (__m512i)m), offset);
  const __m512i odd = _mm512_add_epi64(
      _mm512_mul_epi32(_mm512_srli_epi64((__m512i)x, 32), _mm512_srli_epi64((__m512i)m, 32)), offset);
  return {(Ints)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd),
          (Ints)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32))};
#elif defined(__AVX2__)
  const __m256i offset = _mm256_set1_epi64x(r);
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32((__m256i)x, (__m256i)m), offset);
  const __m256i odd = _mm256_add_epi64(
      _mm256_mul_epi32(_mm256_srli_epi64((__m256i)x, 32), _mm256_srli_epi64((__m256i)m, 32)), offset);
  return {(Ints)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa),
          (Ints)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa)};
#else
  Product y;
  for (int i = 0; i < vector_lanes; ++i) {
    const int64_t product = int64_t{x[i]} * m[i] + int64_t{r};
    y.high[i] = static_cast<int32_t>(product >> 32);
    y.low[i] = static_cast<int32_t>(product);
  }
  return y;
#endif
}

// A factor for each lane in double precision, in two halves.
typedef double HalfDoubles __attribute__((vector_size(vector_bytes)));
struct Doubles {
  HalfDoubles low, high;
};

IREVRNN_INLINE Doubles load_doubles(const double* from) {
  Doubles x;
  memcpy(&x, from, sizeof x);
  return x;
}

// floor((x + part) * factor).
IREVRNN_INLINE Ints floor_of_product(Ints x, double part, const Doubles& factor) {
#if defined(__AVX512F__)
  constexpr int down = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512d added = _mm512_set1_pd(part);
  const __m256i low = _mm512_castsi512_si256((__m512i)x), high = _mm512_extracti64x4_epi64((__m512i)x, 1);
  const __m512d first = _mm512_mul_pd(_mm512_add_pd(_mm512_cvtepi32_pd(low), added), factor.low);
  const __m512d second = _mm512_mul_pd(_mm512_add_pd(_mm512_cvtepi32_pd(high), added), factor.high);
  return (Ints)_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvt_roundpd_epi32(first, down)),
                                  _mm512_cvt_roundpd_epi32(second, down), 1);
#elif defined(__AVX2__)
  const __m256d added = _mm256_set1_pd(part);
  const __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
  const __m256d first = _mm256_mul_pd(_mm256_add_pd(_mm256_cvtepi32_pd(low), added), factor.low);
  const __m256d second = _mm256_mul_pd(_mm256_add_pd(_mm256_cvtepi32_pd(high), added), factor.high);
  return (Ints)_mm256_set_m128i(_mm256_cvttpd_epi32(_mm256_floor_pd(second)),
                                _mm256_cvttpd_epi32(_mm256_floor_pd(first)));
#else
  Ints y;
  for (int i = 0; i < vector_lanes; ++i) {
    const double by = i < vector_lanes / 2 ? factor.low[i] : factor.high[i - vector_lanes / 2];
    y[i] = static_cast<int32_t>(static_cast<int64_t>(::floor((x[i] + part) * by)));
  }
  return y;
#endif
}

}  // namespace irevrnn
