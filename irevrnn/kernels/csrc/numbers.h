// Some numbers of a row that lie side by side: a vector, or at its end fewer.
#pragma once

#include "vectors.h"

namespace irevrnn {

template <bool cut>
struct Numbers {
  int64_t count;
  IREVRNN_INLINE size_t bytes() const { return cut ? count * sizeof(float) : sizeof(Vector); }
  IREVRNN_INLINE Vector load(const float* from, int64_t i) const {
    Vector x{};
    if (from) memcpy(&x, from + i, bytes());
    return x;
  }
  IREVRNN_INLINE void store(float* to, const Vector& x) const { memcpy(to, &x, bytes()); }
  // With 0 in the lanes beyond the last number.
  IREVRNN_INLINE Vector kept(const Vector& x) const {
    Vector y{};
    memcpy(&y, &x, bytes());
    return y;
  }
};

// Calls fn(numbers, i) for all from i = begin to end.
template <class Fn>
IREVRNN_INLINE void each_number(int64_t begin, int64_t end, const Fn& fn) {
  for (; begin + vector_lanes <= end; begin += vector_lanes) fn(Numbers<false>{vector_lanes}, begin);
  if (begin < end) fn(Numbers<true>{end - begin}, begin);
}

}  // namespace irevrnn
