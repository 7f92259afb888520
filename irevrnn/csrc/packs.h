// Packs of several vectors, which go through the cell together: so one vector's latency is hidden behind
// the others' work.
#pragma once

#include "activations.h"

namespace irevrnn {

template <int N>
struct Pack {
  Vector part[N];
};

template <int N>
constexpr int parts_of<Pack<N>> = N;
template <int i, int N>
IREVRNN_INLINE Vector& part_of(Pack<N>& x) { return x.part[i]; }
template <int i, int N>
IREVRNN_INLINE const Vector& part_of(const Pack<N>& x) { return x.part[i]; }

template <int N, class Fn, size_t... i>
IREVRNN_INLINE Pack<N> each_part(Fn&& fn, std::index_sequence<i...>) {
  return {{fn(constant<i>{})...}};
}

// A pack made of fn(constant<0>), fn(constant<1>), ...: unrolled, so that it stays in registers.
template <int N, class Fn>
IREVRNN_INLINE Pack<N> make_pack(Fn&& fn) {
  return each_part<N>(fn, std::make_index_sequence<N>{});
}

template <int N>
IREVRNN_INLINE Pack<N> fma(const Pack<N>& a, const Pack<N>& b, const Pack<N>& c) {
  return make_pack<N>([&](auto i) { return fma(a.part[i.value], b.part[i.value], c.part[i.value]); });
}

template <int N>
IREVRNN_INLINE Pack<N> operator*(const Pack<N>& a, const Pack<N>& b) {
  return make_pack<N>([&](auto i) { return a.part[i.value] * b.part[i.value]; });
}

template <int N>
IREVRNN_INLINE Pack<N> operator/(const Pack<N>& a, const Pack<N>& b) {
  return make_pack<N>([&](auto i) { return a.part[i.value] / b.part[i.value]; });
}

template <int N>
IREVRNN_INLINE Pack<N> operator+(const Pack<N>& a, const Pack<N>& b) {
  return make_pack<N>([&](auto i) { return a.part[i.value] + b.part[i.value]; });
}

template <int N>
IREVRNN_INLINE Pack<N> absolute(const Pack<N>& x) {
  return make_pack<N>([&](auto i) { return absolute(x.part[i.value]); });
}

template <int N>
IREVRNN_INLINE Pack<N> larger(const Pack<N>& x, const Pack<N>& y) {
  return make_pack<N>([&](auto i) { return larger(x.part[i.value], y.part[i.value]); });
}

template <int N>
IREVRNN_INLINE Pack<N> smaller(const Pack<N>& x, const Pack<N>& y) {
  return make_pack<N>([&](auto i) { return smaller(x.part[i.value], y.part[i.value]); });
}

template <int N>
IREVRNN_INLINE bool all_below(const Pack<N>& x, float limit) {
  bool all = true;
  each<N>([&](auto i) { all &= all_below(x.part[i.value], limit); });
  return all;
}

template <Activation kind, int N>
IREVRNN_INLINE Pack<N> activate(const Pack<N>& x) {
  return make_pack<N>([&](auto i) { return activate<kind>(x.part[i.value]); });
}

using Pair = Pack<2>;

template <>
IREVRNN_INLINE Pair broadcast<Pair>(float x) {
  return {{broadcast<Vector>(x), broadcast<Vector>(x)}};
}

template <Activation kind, int N>
IREVRNN_INLINE Pack<N> activate_coupling(const Pack<N>& x) {
  return make_pack<N>([&](auto i) { return activate_coupling<kind>(x.part[i.value]); });
}

// tanh takes two vectors at a time through each of its operations: one fills the gaps that the other leaves, and the
// registers suffice, unless other numbers are kept there.
template <Activation kind, int N>
IREVRNN_INLINE Pack<N> activate_in_pairs(const Pack<N>& x) {
  if constexpr (kind == Activation::tanh && N % 2 == 0) {
    Pack<N> y;
    each<N / 2>([&](auto i) {
      constexpr int first = 2 * i.value;
      const Pair pair = tanh_rational(Pair{{x.part[first], x.part[first + 1]}});
      y.part[first] = pair.part[0];
      y.part[first + 1] = pair.part[1];
    });
    return y;
  } else {
    return activate_coupling<kind>(x);
  }
}

template <Activation kind, int N>
IREVRNN_INLINE Pack<N> slope_from_output(const Pack<N>& y) {
  return make_pack<N>([&](auto i) { return slope_from_output<kind>(y.part[i.value]); });
}

}  // namespace irevrnn
