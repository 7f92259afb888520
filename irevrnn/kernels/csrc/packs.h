// Packs of several vectors, which go through the cell together: so one vector's latency is hidden behind
// the others' work.
#pragma once

#include "activations.h"
#include "rotation.h"

namespace irevrnn {

template <class V, int N>
struct PackOf {
  V part[N];
};
template <int N>
using Pack = PackOf<Vector, N>;
using Pair = Pack<2>;

template <int N>
constexpr int parts_of<Pack<N>> = N;
template <int i, int N>
IREVRNN_INLINE Vector& part_of(Pack<N>& x) { return x.part[i]; }
template <int i, int N>
IREVRNN_INLINE const Vector& part_of(const Pack<N>& x) { return x.part[i]; }

template <class Fn, int... i>
IREVRNN_INLINE auto each_part(const Fn& fn, std::integer_sequence<int, i...>) {
  return PackOf<decltype(fn(constant<0>{})), sizeof...(i)>{{fn(constant<i>{})...}};
}

// A pack made of fn(constant<0>), fn(constant<1>), ...: unrolled, so that it stays in registers.
template <int N, class Fn>
IREVRNN_INLINE auto make_pack(const Fn& fn) { return each_part(fn, std::make_integer_sequence<int, N>{}); }

// Functions of vectors, for all parts of packs.
#define IREVRNN_PART(x) x.part[i.value]
#define IREVRNN_OF_ONE(name) \
  template <class V, int N> \
  IREVRNN_INLINE auto name(const PackOf<V, N>& x) { \
    return make_pack<N>([&](auto i) { return name(IREVRNN_PART(x)); }); \
  }
#define IREVRNN_OF_TWO(name, expression) \
  template <class V, int N> \
  IREVRNN_INLINE auto name(const PackOf<V, N>& x, const PackOf<V, N>& y) { \
    return make_pack<N>([&](auto i) { return expression; }); \
  }
IREVRNN_OF_ONE(absolute)
IREVRNN_OF_TWO(larger, larger(IREVRNN_PART(x), IREVRNN_PART(y)))
IREVRNN_OF_TWO(smaller, smaller(IREVRNN_PART(x), IREVRNN_PART(y)))
IREVRNN_OF_TWO(operator+, IREVRNN_PART(x) + IREVRNN_PART(y))
IREVRNN_OF_TWO(operator*, IREVRNN_PART(x) * IREVRNN_PART(y))
IREVRNN_OF_TWO(operator/, IREVRNN_PART(x) / IREVRNN_PART(y))

template <int N>
IREVRNN_INLINE Pack<N> operator-(const Pack<N>& x) {
  return make_pack<N>([&](auto i) { return -IREVRNN_PART(x); });
}

template <int N>
IREVRNN_INLINE Pack<N> fma(const Pack<N>& a, const Pack<N>& b, const Pack<N>& c) {
  return make_pack<N>([&](auto i) { return fma(a.part[i.value], b.part[i.value], c.part[i.value]); });
}

template <int N>
IREVRNN_INLINE bool all_below(const Pack<N>& x, float limit) {
  bool all = true;
  each<N>([&](auto i) { all &= all_below(x.part[i.value], limit); });
  return all;
}

template <>
IREVRNN_INLINE Pair broadcast<Pair>(float x) { return {{broadcast<Vector>(x), broadcast<Vector>(x)}}; }

template <Activation kind, int N>
IREVRNN_INLINE Pack<N> activate(const Pack<N>& x) {
  return make_pack<N>([&](auto i) { return activate<kind>(x.part[i.value]); });
}

template <int N>
IREVRNN_INLINE Rotation<Pack<N>> rotation_of(const Pack<N>& angle) {
  Rotation<Pack<N>> r;
  each<N>([&](auto i) {
    const Rotation<Vector> part = rotation_of(angle.part[i.value]);
    r.tangent.part[i.value] = part.tangent;
    r.sine.part[i.value] = part.sine;
    r.sign.part[i.value] = part.sign;
  });
  return r;
}

// tanh takes two vectors at a time through each of its operations: one fills the gaps that the other leaves.
template <Activation kind, int N>
IREVRNN_INLINE Pack<N> activate_coupling(const Pack<N>& x) {
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
    return make_pack<N>([&](auto i) { return activate_coupling<kind>(x.part[i.value]); });
  }
}

template <Activation kind, int N>
IREVRNN_INLINE Pack<N> slope_from_output(const Pack<N>& y) {
  return make_pack<N>([&](auto i) { return slope_from_output<kind>(y.part[i.value]); });
}

}  // namespace irevrnn
