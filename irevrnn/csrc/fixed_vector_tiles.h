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

  // -1 for the lanes that exist.
  IREVRNN_INLINE Half exists(int half) const {
    Half index;
    for (int i = 0; i < half_lanes; ++i) index[i] = half * half_lanes + i;
    return index < (cut ? count : width);
  }

  DecayL decay(const V& u) const {
    alignas(vector_bytes) float weights[width];
    VectorTile<N, cut>::store_whole(weights, u);
    DecayL d;
    for (int i = 0; i < 2 * N; ++i) {
      for (int j = 0; j < half_lanes; ++j) {
        const float weight = weights[i * half_lanes + j];
        // A lane that does not exist forgets nothing, or its words would lie on the stack.
        const int64_t n = exists(i)[j] ? static_cast<int64_t>(std::abs(weight) * decay_one) : decay_one;
        d.half[i].n[j] = n;
        d.half[i].inverse[j] = 1.0 / static_cast<double>(n);
        d.half[i].negative[j] = weight < 0 ? -1 : 0;
      }
    }
    return d;
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
        s.half[i.value] = exists(i.value) ? s.half[i.value] : empty_state(d.half[i.value]);
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
                            ? forget_leak(y.half[i.value], s.half[i.value], d.half[i.value], words)
                            : forget_negative(y.half[i.value], exists(i.value), words);
    });
    return h;
  }
  IREVRNN_INLINE L recall_output(Activation g, const L& h, L& s, const DecayL& d, Words& words) const {
    if (g == Activation::identity) return h;
    L y;
    each_reversed<2 * N>([&](auto i) {
      y.half[i.value] = g == Activation::leaky_relu
                            ? recall_leak(h.half[i.value], s.half[i.value], d.half[i.value], words)
                            : recall_negative(h.half[i.value], exists(i.value), words);
    });
    return y;
  }
  IREVRNN_INLINE static bool out_of_range(const L& x) {
    Half outside{};
    each<2 * N>([&](auto i) {
      outside |= (x.half[i.value] >= range) | (x.half[i.value] <= -range);
    });
    return bits_of(outside) != 0;
  }
};

template <int N>
struct FixedVectorTiles {
  static constexpr int width = N * vector_lanes;
  template <class Fn>
  static void each(int64_t first, int64_t past_last, const Fn& fn) {
    for (; first + width <= past_last; first += width) fn(FixedVectorTile<N, false>{}, first);
    if (first < past_last) fn(cut_tile(past_last - first), first);
  }
  template <class Fn>
  static void each_reversed(int64_t first, int64_t past_last, const Fn& fn) {
    const int64_t whole = first + (past_last - first) / width * width;
    if (whole < past_last) fn(cut_tile(past_last - whole), whole);
    for (int64_t lane = whole - width; lane >= first; lane -= width) {
      fn(FixedVectorTile<N, false>{}, lane);
    }
  }

 private:
  static FixedVectorTile<N, true> cut_tile(int64_t count) {
    FixedVectorTile<N, true> tile;
    tile.count = static_cast<int>(count);
    return tile;
  }
};

}  // namespace irevrnn
