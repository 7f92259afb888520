// Tiles of float lanes for the vectorised fixed-point scan.
#pragma once

#include "fixed_tile.h"
#include "long_packs.h"
#include "vector_tiles.h"

namespace irevrnn {

template <int N>
struct DecayPack {
  Decay<Half> half[2 * N];
};

template <int N, bool cut>
struct FixedVectorTile : VectorTile<N, cut> {
  using V = Pack<N>;
  using L = LongPack<N>;
  using DecayL = DecayPack<N>;
  using VectorTile<N, cut>::width;
  using VectorTile<N, cut>::count;

  IREVRNN_INLINE Lanes exists(int half) const {
    Half index;
    for (int i = 0; i < half_lanes; ++i) index[i] = half * half_lanes + i;
    return less(index, all_lanes(index, cut ? count : width));
  }

  // 0 in the lanes that do not exist, which then leak nothing. An f that is not 0 at 0 moves them.
  template <class Index>
  IREVRNN_INLINE Half existing(const L& x, Index i) const {
    return cut ? choose(exists(i.value), x.half[i.value], Half{}) : x.half[i.value];
  }

  IREVRNN_INLINE DecayL decay(const V& u) const {
    const L signed_n = nearest(make_pack<N>([&](auto i) { return u.part[i.value] * decay_one; }));
    DecayL decays;
    irevrnn::each<2 * N>([&](auto i) {
      const Half x = signed_n.half[i.value];
      Decay<Half>& d = decays.half[i.value];
      d.negative = x >> 63;
      d.n = (x ^ d.negative) - d.negative;
      // A lane that does not exist forgets nothing, or its words would lie on the stack.
      if constexpr (cut) d.n = choose(exists(i.value), d.n, all_lanes(x, decay_one));
      d.inverse = 1.0 / to_double(d.n);
    });
    return decays;
  }

  IREVRNN_INLINE L load_long(const int64_t* from) const {
    L x{};
    if constexpr (cut) {
      memcpy(&x, from, count * sizeof(int64_t));
    } else {
      each<2 * N>([&](auto i) { x.half[i.value] = load_half(from + i.value * half_lanes); });
    }
    return x;
  }
  // The states of the bit stacks; lanes that do not exist have an empty one, which no step moves.
  IREVRNN_INLINE L load_state(const int64_t* from, const DecayL& d) const {
    L s = load_long(from);
    if constexpr (cut) {
      each<2 * N>([&](auto i) {
        s.half[i.value] = choose(exists(i.value), s.half[i.value], empty_state(d.half[i.value]));
      });
    }
    return s;
  }
  IREVRNN_INLINE void store_long(int64_t* to, const L& x) const {
    if constexpr (cut) {
      memcpy(to, &x, count * sizeof(int64_t));
    } else {
      each<2 * N>([&](auto i) { store_half(to + i.value * half_lanes, x.half[i.value]); });
    }
  }

  IREVRNN_INLINE L forget(const L& h, L& s, const DecayL& d, Words& words) const {
    L p;
    each<2 * N>([&](auto i) {
      p.half[i.value] = irevrnn::forget(h.half[i.value], s.half[i.value], d.half[i.value], words);
    });
    return p;
  }
  IREVRNN_INLINE L recall(const L& p, L& s, const DecayL& d, Words& words) const {
    L h;
    each_reversed<2 * N>([&](auto i) {
      h.half[i.value] = irevrnn::recall(p.half[i.value], s.half[i.value], d.half[i.value], words);
    });
    return h;
  }
  IREVRNN_INLINE L forget_output(Activation g, const L& y, L& s, const DecayL& d, Words& words) const {
    if (g == Activation::identity) return y;
    L h;
    each<2 * N>([&](auto i) {
      h.half[i.value] = g == Activation::leaky_relu
                            ? forget_leak(existing(y, i), s.half[i.value], d.half[i.value], words)
                            : forget_negative(y.half[i.value], exists(i.value), words);
    });
    return h;
  }
  IREVRNN_INLINE L recall_output(Activation g, const L& h, L& s, const DecayL& d, Words& words) const {
    if (g == Activation::identity) return h;
    L y;
    each_reversed<2 * N>([&](auto i) {
      y.half[i.value] = g == Activation::leaky_relu
                            ? recall_leak(existing(h, i), s.half[i.value], d.half[i.value], words)
                            : recall_negative(h.half[i.value], exists(i.value), words);
    });
    return y;
  }
  IREVRNN_INLINE static bool out_of_range(const L& x) {
    const Half limit = all_lanes(Half{}, range - 1);
    unsigned outside = 0;
    each<2 * N>([&](auto i) {
      const Half half = x.half[i.value];
      outside |= bits_of(less(limit, half)) | bits_of(less(half, -limit));
    });
    return outside != 0;
  }
};

// Tiles of N vectors, and of half as many for what is left, down to one that is cut short.
template <int N>
struct FixedVectorTiles {
  static constexpr int width = N * vector_lanes;
  template <class Fn>
  static void each(int64_t first, int64_t past_last, const Fn& fn) {
    for (; first + width <= past_last; first += width) fn(FixedVectorTile<N, false>{}, first);
    if (first < past_last) FixedVectorTiles<N / 2>::each(first, past_last, fn);
  }
  template <class Fn>
  static void each_reversed(int64_t first, int64_t past_last, const Fn& fn) {
    const int64_t whole = first + (past_last - first) / width * width;
    if (whole < past_last) FixedVectorTiles<N / 2>::each_reversed(whole, past_last, fn);
    for (int64_t lane = whole - width; lane >= first; lane -= width) {
      fn(FixedVectorTile<N, false>{}, lane);
    }
  }
};

template <>
struct FixedVectorTiles<0> {
  template <class Fn>
  static void each(int64_t first, int64_t past_last, const Fn& fn) {
    FixedVectorTile<1, true> tile;
    tile.count = static_cast<int>(past_last - first);
    fn(tile, first);
  }
  template <class Fn>
  static void each_reversed(int64_t first, int64_t past_last, const Fn& fn) {
    each(first, past_last, fn);
  }
};

}  // namespace irevrnn
