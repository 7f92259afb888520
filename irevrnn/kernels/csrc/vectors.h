// Vectors of floats and of 32-bit integers on the CPU, as wide as its registers: what portable.h and fixed_point.h have for
// one number. They are GCC vector extensions, which clang has too, and which compile for any processor. Intrinsics stand
// where a compiler writes more instructions than one.
#pragma once

#include "portable.h"

#if !defined(__CUDACC__)
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace irevrnn {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#define IREVRNN_X86(name) _mm512_##name
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int vector_bytes = 32;
#define IREVRNN_X86(name) _mm256_##name
#else
constexpr int vector_bytes = 16;
#if defined(__SSE2__)
#define IREVRNN_X86(name) _mm_##name
#endif
#endif

typedef float Vector __attribute__((vector_size(vector_bytes)));
typedef int32_t Ints __attribute__((vector_size(vector_bytes)));
typedef uint32_t VectorBits __attribute__((vector_size(vector_bytes)));
typedef long long Longs __attribute__((vector_size(vector_bytes)));
constexpr int vector_lanes = vector_bytes / sizeof(float);

template <>
IREVRNN_INLINE Vector broadcast<Vector>(float x) { return x - Vector{}; }
IREVRNN_INLINE Ints all_lanes(int32_t x) { return x - Ints{}; }

template <class V, class T>
IREVRNN_INLINE void store_vector(T* to, const V& x) { memcpy(to, &x, sizeof x); }
template <class V, class T>
IREVRNN_INLINE V load_as(const T* from) {
  V x;
  memcpy(&x, from, sizeof x);
  return x;
}
IREVRNN_INLINE Vector load_vector(const float* from) { return load_as<Vector>(from); }
IREVRNN_INLINE Ints load_vector(const int32_t* from) { return load_as<Ints>(from); }

IREVRNN_INLINE Vector fma(Vector a, Vector b, Vector c) {
#if defined(__FMA__)
  return IREVRNN_X86(fmadd_ps)(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  Vector result;
  for (int i = 0; i < vector_lanes; ++i) result[i] = ::fmaf(a[i], b[i], c[i]);
  return result;
#endif
}

IREVRNN_INLINE Vector absolute(Vector x) { return (Vector)((VectorBits)x & 0x7fffffffu); }
IREVRNN_INLINE Vector copy_sign(Vector magnitude, Vector sign) {
  return (Vector)((VectorBits)magnitude | ((VectorBits)sign & 0x80000000u));
}
IREVRNN_INLINE Vector power_from_low_bits(Vector shifted) { return (Vector)((VectorBits)shifted << 23); }
IREVRNN_INLINE Vector flip_by_low_bit(Vector x, Vector bits) {
  return (Vector)((VectorBits)x ^ ((VectorBits)bits << 31));
}

#if defined(IREVRNN_X86)
IREVRNN_INLINE Vector larger(Vector x, Vector y) { return IREVRNN_X86(max_ps)(x, y); }
IREVRNN_INLINE Vector smaller(Vector x, Vector y) { return IREVRNN_X86(min_ps)(x, y); }
#endif

// Sums wrap around (fixed_point.h).
IREVRNN_INLINE Ints plus(Ints x, Ints y) { return (Ints)((VectorBits)x + (VectorBits)y); }
IREVRNN_INLINE Ints minus(Ints x, Ints y) { return (Ints)((VectorBits)x - (VectorBits)y); }

// Some of the lanes, as a comparison chooses them. Where the processor has registers for that they are
// used from the comparison on: the compiler would go through a vector of -1 and 0.
#if defined(__AVX512F__)
struct Lanes {
  __mmask16 bits;
};
IREVRNN_INLINE Lanes less(Vector x, Vector y) { return {_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ)}; }
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
IREVRNN_INLINE Lanes less(Vector x, Vector y) { return x < y; }
IREVRNN_INLINE Lanes less(Ints x, Ints y) { return x < y; }
IREVRNN_INLINE Lanes less_unsigned(Ints x, Ints y) { return (Ints)((VectorBits)x < (VectorBits)y); }
IREVRNN_INLINE Lanes same(Ints x, Ints y) { return x == y; }
IREVRNN_INLINE Ints choose(Lanes which, Ints x, Ints y) { return (which & x) | (~which & y); }
IREVRNN_INLINE unsigned bits_of(Lanes which) {
#if defined(IREVRNN_X86)
  return static_cast<unsigned>(IREVRNN_X86(movemask_ps)((Vector)which));
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

IREVRNN_INLINE bool all_below(Vector x, float limit) {
  return bits_of(less(x, broadcast<Vector>(limit))) == (1u << vector_lanes) - 1;
}
// Where |x| >= limit.
IREVRNN_INLINE Lanes beyond(Ints x, int32_t limit) {
  const Ints shifted = plus(x, all_lanes(limit - 1));  // without a sign, from 0 to 2 * limit - 2 within
  return less_unsigned(all_lanes(2 * (limit - 1)), shifted);
}

IREVRNN_INLINE Vector floats_of(Ints x) { return __builtin_convertvector(x, Vector); }
IREVRNN_INLINE Vector powers_of_two(Ints n) { return (Vector)((VectorBits)(n + all_lanes(127)) << 23); }

// The nearest integers, ties to even. x86 needs no cut: what int32_t has no room for, and a NaN, becomes the lowest
// number, which stays out of range as what is cut off does.
IREVRNN_INLINE Ints nearest(Vector x, [[maybe_unused]] float cut_off) {
#if defined(IREVRNN_X86)
  return (Ints)IREVRNN_X86(cvtps_epi32)(x);
#elif defined(__aarch64__)
  return (Ints)vcvtnq_s32_f32(saturate(x, cut_off));
#else
  x = saturate(x, cut_off);
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
#if defined(__SSE4_1__)
  const auto product = [r](Longs x, Longs m) {
    return (Longs)IREVRNN_X86(mul_epi32)(x, m) + static_cast<long long>(r);
  };
  const Longs even = product((Longs)x, (Longs)m), odd = product((Longs)x >> 32, (Longs)m >> 32);
  const Lanes odd_lanes = lanes_of(0xaaaa & ((1u << vector_lanes) - 1));
  return {choose(odd_lanes, (Ints)odd, (Ints)(even >> 32)), choose(odd_lanes, (Ints)(odd << 32), (Ints)even)};
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

IREVRNN_INLINE Doubles reciprocals(Vector x) {
#if defined(__AVX512F__)
  const __m256 low = _mm512_castps512_ps256(x), high = _mm512_extractf32x8_ps(x, 1);
  return {1.0 / (HalfDoubles)_mm512_cvtps_pd(low), 1.0 / (HalfDoubles)_mm512_cvtps_pd(high)};
#else
  Doubles y;
  constexpr int half = vector_lanes / 2;
  for (int i = 0; i < half; ++i) {
    y.low[i] = 1.0 / x[i];
    y.high[i] = 1.0 / x[i + half];
  }
  return y;
#endif
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
#elif defined(__AVX2__) && defined(__FMA__)
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
#endif
