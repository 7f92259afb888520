// Vectors of 64-bit integers that go with vectors.h: two halves for the lanes of one vector of floats.
#pragma once

#include "vectors.h"

namespace irevrnn {

constexpr int half_lanes = vector_bytes / sizeof(int64_t);

typedef int64_t Half __attribute__((vector_size(vector_bytes)));
typedef double HalfDouble __attribute__((vector_size(vector_bytes)));
typedef float HalfFloat __attribute__((vector_size(vector_bytes / 2)));

IREVRNN_INLINE HalfDouble to_double(Half x) { return __builtin_convertvector(x, HalfDouble); }
IREVRNN_INLINE Half to_long(HalfDouble x) { return __builtin_convertvector(x, Half); }
IREVRNN_INLINE void store_half(int64_t* to, Half x) { memcpy(to, &x, sizeof x); }

IREVRNN_INLINE Half load_half(const int64_t* from) {
  Half x;
  memcpy(&x, from, sizeof x);
  return x;
}

IREVRNN_INLINE Half all_lanes(Half, int64_t x) { return x - Half{}; }

// One bit for each lane of a comparison's result.
IREVRNN_INLINE unsigned bits_of(Half mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi64_mask((__m512i)mask);
#elif defined(__AVX__)
  return _mm256_movemask_pd((__m256d)mask);
#else
  unsigned bits = 0;
  for (int i = 0; i < half_lanes; ++i) bits |= (mask[i] != 0) << i;
  return bits;
#endif
}

// To the nearest whole number, ties to even.
IREVRNN_INLINE Vector round_to_whole(Vector x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX__)
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  for (int i = 0; i < vector_lanes; ++i) x[i] = ::nearbyintf(x[i]);
  return x;
#endif
}

template <size_t... i>
IREVRNN_INLINE Vector join_halves(HalfFloat low, HalfFloat high, std::index_sequence<i...>) {
  return __builtin_shufflevector(low, high, i...);
}

template <size_t... i>
IREVRNN_INLINE HalfFloat half_of(Vector x, std::index_sequence<i...>) {
  return __builtin_shufflevector(x, x, i...);
}

template <size_t... i>
IREVRNN_INLINE HalfFloat upper_half_of(Vector x, std::index_sequence<i...>) {
  return __builtin_shufflevector(x, x, (i + half_lanes)...);
}

IREVRNN_INLINE Vector floats_of(Half low, Half high) {
  return join_halves(__builtin_convertvector(low, HalfFloat), __builtin_convertvector(high, HalfFloat),
                     std::make_index_sequence<vector_lanes>{});
}

IREVRNN_INLINE Half lower_longs_of(Vector x) {
  return __builtin_convertvector(half_of(x, std::make_index_sequence<half_lanes>{}), Half);
}

IREVRNN_INLINE Half upper_longs_of(Vector x) {
  return __builtin_convertvector(upper_half_of(x, std::make_index_sequence<half_lanes>{}), Half);
}

}  // namespace irevrnn
