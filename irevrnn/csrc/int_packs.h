// Packs of 32-bit integers, the fixed-point numbers that go with the packs of floats of packs.h.
#pragma once

#include "fixed_point.h"
#include "packs.h"

namespace irevrnn {

template <int N>
struct IntPack {
  Ints part[N];
};

template <int N, class Fn>
IREVRNN_INLINE IntPack<N> make_ints(const Fn& fn) {
  IntPack<N> result;
  each<N>([&](auto i) { result.part[i.value] = fn(i); });
  return result;
}

template <class V, int N>
IREVRNN_INLINE V whole_values(const IntPack<N>& x) {
  return make_pack<N>([&](auto i) { return floats_of(x.part[i.value]); });
}

template <class V, int N>
IREVRNN_INLINE Scale<V> scale_of(const IntPack<N>& bits) {
  return {make_pack<N>([&](auto i) { return powers_of_two(-bits.part[i.value]); }),
          make_pack<N>([&](auto i) { return powers_of_two(bits.part[i.value]); })};
}

// x86 needs no cut: what int32_t has no room for, and a NaN, becomes the lowest number, which stays out of range as
// what is cut off does.
template <int N>
IREVRNN_INLINE IntPack<N> nearest(const Pack<N>& x) {
#if defined(__SSE2__)
  return make_ints<N>([&](auto i) { return nearest_ints(x.part[i.value]); });
#else
  return make_ints<N>([&](auto i) { return nearest_ints(saturate(x.part[i.value], cut_off)); });
#endif
}

template <int N>
IREVRNN_INLINE IntPack<N> plus(const IntPack<N>& a, const IntPack<N>& b) {
  return make_ints<N>([&](auto i) { return plus(a.part[i.value], b.part[i.value]); });
}

template <int N>
IREVRNN_INLINE IntPack<N> minus(const IntPack<N>& a, const IntPack<N>& b) {
  return make_ints<N>([&](auto i) { return minus(a.part[i.value], b.part[i.value]); });
}

}  // namespace irevrnn
