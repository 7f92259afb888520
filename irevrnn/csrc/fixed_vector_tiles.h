// Tiles of float lanes for the vectorised fixed-point scan.
#pragma once

#include "fixed_tile.h"
#include "long_packs.h"
#include "vector_tiles.h"

namespace irevrnn {

template <int N>
struct DecayPack {
  Decay<Longs> part[N];
};

template <int N, bool cut>
struct FixedVectorTile : VectorTile<N, cut> {
  using V = Pack<N>;
  using L = LongPack<N>;
  using DecayL = DecayPack<N>;
  using VectorTile<N, cut>::width;
  using VectorTile<N, cut>::count;

  IREVRNN_INLINE LanesOfLongs exists(int part) const {
    Half index;
    for (int i = 0; i < half_lanes; ++i) index[i] = part * vector_lanes + i;
    const Half past_last = all_lanes(index, cut ? count : width);
    return {less(index, past_last), less(index + half_lanes, past_last)};
  }

  // 0 in the lanes that do not exist, which then leak nothing. An f that is not 0 at 0 moves them.
  template <class Index>
  IREVRNN_INLINE Longs existing(const L& x, Index i) const {
    return cut ? choose(exists(i.value), x.part[i.value], Longs{}) : x.part[i.value];
  }

  IREVRNN_INLINE DecayL decay(const V& u) const {
    const L signed_n = nearest(make_pack<N>([&](auto i) { return u.part[i.value] * decay_one; }));
    DecayL decays;
    irevrnn::each<N>([&](auto i) {
      const Longs x = signed_n.part[i.value];
      Decay<Longs>& d = decays.part[i.value];
      d.negative = x >> 63;
      d.n = minus(x ^ d.negative, d.negative);
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
      each<N>([&](auto i) { x.part[i.value] = load_longs(from + i.value * vector_lanes); });
    }
    return x;
  }
  // The states of the bit stacks; lanes that do not exist have an empty one, which no step moves.
  IREVRNN_INLINE L load_state(const int64_t* from, const DecayL& d) const {
    L s = load_long(from);
    if constexpr (cut) {
      each<N>([&](auto i) {
        s.part[i.value] = choose(exists(i.value), s.part[i.value], empty_state(d.part[i.value]));
      });
    }
    return s;
  }
  IREVRNN_INLINE void store_long(int64_t* to, const L& x) const {
    if constexpr (cut) {
      memcpy(to, &x, count * sizeof(int64_t));
    } else {
      each<N>([&](auto i) { store_longs(to + i.value * vector_lanes, x.part[i.value]); });
    }
  }

  IREVRNN_INLINE L forget(const L& h, L& s, const DecayL& d, Words& words) const {
    L p;
    each<N>([&](auto i) {
      p.part[i.value] = irevrnn::forget(h.part[i.value], s.part[i.value], d.part[i.value], words);
    });
    return p;
  }
  IREVRNN_INLINE L recall(const L& p, L& s, const DecayL& d, Words& words) const {
    L h;
    each_reversed<N>([&](auto i) {
      h.part[i.value] = irevrnn::recall(p.part[i.value], s.part[i.value], d.part[i.value], words);
    });
    return h;
  }
  IREVRNN_INLINE L forget_output(Activation g, const L& y, L& s, const DecayL& d, Words& words) const {
    if (g == Activation::identity) return y;
    L h;
    each<N>([&](auto i) {
      h.part[i.value] = g == Activation::leaky_relu
                            ? forget_leak(existing(y, i), s.part[i.value], d.part[i.value], words)
                            : forget_negative(y.part[i.value], exists(i.value), words);
    });
    return h;
  }
  IREVRNN_INLINE L recall_output(Activation g, const L& h, L& s, const DecayL& d, Words& words) const {
    if (g == Activation::identity) return h;
    L y;
    each_reversed<N>([&](auto i) {
      y.part[i.value] = g == Activation::leaky_relu
                            ? recall_leak(existing(h, i), s.part[i.value], d.part[i.value], words)
                            : recall_negative(h.part[i.value], exists(i.value), words);
    });
    return y;
  }
  IREVRNN_INLINE static bool out_of_range(const L& x) {
    Lanes outside{};
    each<N>([&](auto i) { outside = outside | beyond(x.part[i.value], range); });
    return bits_of(outside) != 0;
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
