// Packs of 64-bit integers, the fixed-point numbers that go with the packs of floats of packs.h.
#pragma once

#include "fixed_point.h"
#include "packs.h"

namespace irevrnn {

template <int N>
struct LongPack {
  Longs part[N];
};

// The calls of each in reverse order.
template <int count, class Fn>
IREVRNN_INLINE void each_reversed(const Fn& fn) {
  each<count>([&](auto i) { fn(constant<count - 1 - i.value>{}); });
}

template <class V, int N>
IREVRNN_INLINE V values_of(const LongPack<N>& x) {
  return make_pack<N>([&](auto i) {
    return floats_of(x.part[i.value]) * broadcast<Vector>(unit);
  });
}

template <int N>
IREVRNN_INLINE LongPack<N> nearest(const Pack<N>& x) {
  LongPack<N> result;
  each<N>([&](auto i) { result.part[i.value] = nearest_longs(x.part[i.value], cut_off); });
  return result;
}

template <int N>
IREVRNN_INLINE LongPack<N> fixed_of(const Pack<N>& x) {
  return nearest(make_pack<N>([&](auto i) { return x.part[i.value] * broadcast<Vector>(units); }));
}

template <int N>
IREVRNN_INLINE LongPack<N> plus(const LongPack<N>& a, const LongPack<N>& b) {
  LongPack<N> result;
  each<N>([&](auto i) { result.part[i.value] = plus(a.part[i.value], b.part[i.value]); });
  return result;
}

template <int N>
IREVRNN_INLINE LongPack<N> minus(const LongPack<N>& a, const LongPack<N>& b) {
  LongPack<N> result;
  each<N>([&](auto i) { result.part[i.value] = minus(a.part[i.value], b.part[i.value]); });
  return result;
}

}  // namespace irevrnn
