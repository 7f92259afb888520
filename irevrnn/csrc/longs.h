// The 64-bit integers that go with a vector of floats: two halves, to which every operation is applied.
#pragma once

#include "long_vectors.h"

namespace irevrnn {

struct Longs {
  Half low, high;
};
struct DoublesOfLongs {
  HalfDouble low, high;
};
struct LanesOfLongs {
  Lanes low, high;
};

IREVRNN_INLINE Longs operator<<(const Longs& x, int n) { return {x.low << n, x.high << n}; }
IREVRNN_INLINE Longs operator>>(const Longs& x, int n) { return {x.low >> n, x.high >> n}; }
IREVRNN_INLINE Longs operator|(const Longs& x, const Longs& y) { return {x.low | y.low, x.high | y.high}; }
IREVRNN_INLINE Longs operator^(const Longs& x, const Longs& y) { return {x.low ^ y.low, x.high ^ y.high}; }
IREVRNN_INLINE Longs operator&(const Longs& x, int64_t y) { return {x.low & y, x.high & y}; }
IREVRNN_INLINE Longs operator-(const Longs& x, int64_t y) { return {x.low - y, x.high - y}; }
IREVRNN_INLINE Longs plus(const Longs& x, const Longs& y) { return {plus(x.low, y.low), plus(x.high, y.high)}; }
IREVRNN_INLINE Longs minus(const Longs& x, const Longs& y) { return {minus(x.low, y.low), minus(x.high, y.high)}; }
IREVRNN_INLINE Longs times(const Longs& x, const Longs& n) { return {times(x.low, n.low), times(x.high, n.high)}; }
IREVRNN_INLINE Longs all_lanes(const Longs&, int64_t x) { return {all_lanes(Half{}, x), all_lanes(Half{}, x)}; }

IREVRNN_INLINE DoublesOfLongs to_double(const Longs& x) { return {to_double(x.low), to_double(x.high)}; }
IREVRNN_INLINE Longs to_long(const DoublesOfLongs& x) { return {to_long(x.low), to_long(x.high)}; }
IREVRNN_INLINE DoublesOfLongs operator*(const DoublesOfLongs& x, const DoublesOfLongs& y) {
  return {x.low * y.low, x.high * y.high};
}
IREVRNN_INLINE DoublesOfLongs operator/(double x, const DoublesOfLongs& y) { return {x / y.low, x / y.high}; }

IREVRNN_INLINE LanesOfLongs less(const Longs& x, const Longs& y) { return {less(x.low, y.low), less(x.high, y.high)}; }
IREVRNN_INLINE LanesOfLongs operator&(const LanesOfLongs& x, const LanesOfLongs& y) {
  return {x.low & y.low, x.high & y.high};
}
IREVRNN_INLINE Longs choose(const LanesOfLongs& which, const Longs& x, const Longs& y) {
  return {choose(which.low, x.low, y.low), choose(which.high, x.high, y.high)};
}
IREVRNN_INLINE Lanes beyond(const Longs& x, int64_t limit) { return beyond(x.low, limit) | beyond(x.high, limit); }

IREVRNN_INLINE Longs load_longs(const int64_t* from) { return {load_half(from), load_half(from + half_lanes)}; }
IREVRNN_INLINE void store_longs(int64_t* to, const Longs& x) {
  store_half(to, x.low);
  store_half(to + half_lanes, x.high);
}

// The low 16 bits of the chosen lanes, in their order; may write vector_lanes words, the last without meaning. Returns
// the number of those that have one.
IREVRNN_INLINE int store_chosen(uint16_t* to, const LanesOfLongs& which, const Longs& x) {
  const unsigned low = bits_of(which.low), high = bits_of(which.high);
  const int of_low = __builtin_popcount(low);
  store_chosen(to, low, x.low);
  store_chosen(to + of_low, high, x.high);
  return of_low + __builtin_popcount(high);
}

// Words that end at `end` back into the chosen lanes, 0 into the others; may read vector_lanes words. Moves `end` to
// where they begin.
IREVRNN_INLINE Longs load_chosen(uint16_t*& end, const LanesOfLongs& which) {
  const unsigned low = bits_of(which.low), high = bits_of(which.high);
  const int of_low = __builtin_popcount(low);
  end -= of_low + __builtin_popcount(high);
  return {load_chosen(end, low), load_chosen(end + of_low, high)};
}

// floats_of: the nearest floats.
// nearest_longs: the nearest integers, ties to even. What lies beyond limit, or is NaN, becomes a
// number that is at least as large, of either sign.
#if defined(__AVX512DQ__)
IREVRNN_INLINE Vector floats_of(const Longs& x) {
  const __m512 lower = _mm512_castps256_ps512(_mm512_cvtepi64_ps((__m512i)x.low));
  return _mm512_insertf32x8(lower, _mm512_cvtepi64_ps((__m512i)x.high), 1);
}

IREVRNN_INLINE Longs nearest_longs(Vector x, float) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;  // and -2^63 at worst
  return {(Half)_mm512_cvt_roundps_epi64(_mm512_castps512_ps256(x), nearest),
          (Half)_mm512_cvt_roundps_epi64(_mm512_extractf32x8_ps(x, 1), nearest)};
}
#else
template <size_t... i>
IREVRNN_INLINE Vector join_halves(HalfFloat low, HalfFloat high, std::index_sequence<i...>) {
  return __builtin_shufflevector(low, high, i...);
}

template <int first, size_t... i>
IREVRNN_INLINE HalfFloat half_of(Vector x, std::index_sequence<i...>) {
  return __builtin_shufflevector(x, x, (i + first)...);
}

IREVRNN_INLINE Vector round_to_float(const Longs& x) {
  return join_halves(__builtin_convertvector(x.low, HalfFloat), __builtin_convertvector(x.high, HalfFloat),
                     std::make_index_sequence<vector_lanes>{});
}

IREVRNN_INLINE Vector floats_of(const Longs& x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // By way of doubles, where these hold the numbers exactly.
  const Vector y = _mm256_set_m128(_mm256_cvtpd_ps(to_double(x.high)), _mm256_cvtpd_ps(to_double(x.low)));
  if (__builtin_expect(all_below(absolute(y), 0x1p53f), 1)) return y;
#endif
  return round_to_float(x);
}

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

IREVRNN_INLINE Longs nearest_longs(Vector x, float limit) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if (__builtin_expect(all_below(absolute(x), 0x1p51f), 1)) {  // adding 1.5 * 2^52 rounds
    return {whole_to_long(_mm256_cvtps_pd(_mm256_castps256_ps128(x))),
            whole_to_long(_mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)))};
  }
#endif
  const Vector whole = round_to_whole(saturate(x, limit));
  const auto half = std::make_index_sequence<half_lanes>{};
  return {__builtin_convertvector(half_of<0>(whole, half), Half),
          __builtin_convertvector(half_of<half_lanes>(whole, half), Half)};
}
#endif

}  // namespace irevrnn
