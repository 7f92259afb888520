// Vectors of floats on the CPU, as wide as its registers.
//
// They are GCC vector extensions, which clang has too: arithmetic, comparison and ?: work lane by lane
// and compile for any processor. Here is what portable.h has for a single float.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "portable.h"

namespace irevrnn {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

typedef float Vector __attribute__((vector_size(vector_bytes)));
typedef uint32_t VectorBits __attribute__((vector_size(vector_bytes)));
constexpr int vector_lanes = vector_bytes / sizeof(float);

template <>
IREVRNN_INLINE Vector broadcast<Vector>(float x) { return x - Vector{}; }

IREVRNN_INLINE Vector fma(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  Vector result;
  for (int i = 0; i < vector_lanes; ++i) result[i] = ::fmaf(a[i], b[i], c[i]);
  return result;
#endif
}

#if defined(__AVX__) && !defined(__AVX512F__)
// As floats: what goes from the processor's integer part to the other comes a cycle later.
IREVRNN_INLINE Vector absolute(Vector x) { return _mm256_andnot_ps(broadcast<Vector>(-0.0f), x); }
IREVRNN_INLINE Vector copy_sign(Vector magnitude, Vector sign) {
  return _mm256_or_ps(magnitude, _mm256_and_ps(broadcast<Vector>(-0.0f), sign));
}
#else
IREVRNN_INLINE Vector absolute(Vector x) { return (Vector)((VectorBits)x & 0x7fffffffu); }
IREVRNN_INLINE Vector copy_sign(Vector magnitude, Vector sign) {
  return (Vector)((VectorBits)magnitude | ((VectorBits)sign & 0x80000000u));
}
#endif

IREVRNN_INLINE Vector power_from_low_bits(Vector shifted) {
  return (Vector)((VectorBits)shifted << 23);
}

// The compiler would take a comparison and a choice.
#if defined(__AVX512F__)
IREVRNN_INLINE Vector larger(Vector x, Vector y) { return _mm512_max_ps(x, y); }
IREVRNN_INLINE Vector smaller(Vector x, Vector y) { return _mm512_min_ps(x, y); }
#elif defined(__AVX__)
IREVRNN_INLINE Vector larger(Vector x, Vector y) { return _mm256_max_ps(x, y); }
IREVRNN_INLINE Vector smaller(Vector x, Vector y) { return _mm256_min_ps(x, y); }
#elif defined(__SSE__)
IREVRNN_INLINE Vector larger(Vector x, Vector y) { return _mm_max_ps(x, y); }
IREVRNN_INLINE Vector smaller(Vector x, Vector y) { return _mm_min_ps(x, y); }
#endif

IREVRNN_INLINE bool all_below(Vector x, float limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(x, broadcast<Vector>(limit), _CMP_NLT_UQ) == 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(_mm256_cmp_ps(x, broadcast<Vector>(limit), _CMP_NLT_UQ)) == 0;
#else
  bool all = true;
  for (int i = 0; i < vector_lanes; ++i) all &= x[i] < limit;
  return all;
#endif
}

IREVRNN_INLINE void store_vector(float* to, Vector x) { memcpy(to, &x, sizeof x); }

// Writes to memory without reading the line first and without leaving it in the caches. The address is a multiple
// of vector_bytes, and the rest of its line is written next.
IREVRNN_INLINE void stream_vector(float* to, Vector x) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, x);
#elif defined(__AVX__)
  _mm256_stream_ps(to, x);
#elif defined(__SSE__)
  _mm_stream_ps(to, x);
#else
  store_vector(to, x);
#endif
}

// Lets other threads see what was streamed.
inline void finish_streams() {
#if defined(__SSE__)
  _mm_sfence();
#endif
}

IREVRNN_INLINE Vector load_vector(const float* from) {
  Vector x;
  memcpy(&x, from, sizeof x);
  return x;
}

}  // namespace irevrnn
