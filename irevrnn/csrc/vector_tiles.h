// Tiles of float lanes for the vectorised scan.
#pragma once

#include "packs.h"
#include "scan_tile.h"

namespace irevrnn {

// Vectors in a tile: enough to hide the latency of each behind the others' work, and few enough that what a tile recomputes
// in the backward pass, a block of steps with 2R rows each, stays in the first-level cache (24 KB for R = 3).
constexpr int tile_vectors = vector_bytes == 64 ? 4 : 8;

// Vectors that go together through what carries several numbers of each lane and needs registers to compute with.
constexpr int narrow_vectors = 4;

// N vectors of lanes. Where the lanes end inside the tile (cut), the missing ones read as 0 and are
// never written.
template <int N, bool cut>
struct VectorTile {
  using V = Pack<N>;
  using Scalar = float;
  static constexpr int width = N * vector_lanes;
  int count = width;

  IREVRNN_INLINE static V load_whole(const float* from) {
    return make_pack<N>([&](auto i) { return load_vector(from + i.value * vector_lanes); });
  }
  // Part by part: a copy of the pack would keep it in memory, not in registers.
  IREVRNN_INLINE static void store_whole(float* to, const V& x) {
    irevrnn::each<N>([&](auto i) { store_vector(to + i.value * vector_lanes, x.part[i.value]); });
  }

  // Calls fn(narrower tile, its first lane here) for the parts of the tile that have room in the registers where each
  // lane needs several.
  template <class Fn>
  IREVRNN_INLINE void each_narrow(const Fn& fn) const {
    if constexpr (N <= narrow_vectors) {
      fn(*this, 0);
    } else {
      for (int first = 0; first < width; first += narrow_vectors * vector_lanes) {
        fn(VectorTile<narrow_vectors, false>{}, first);
      }
    }
  }

  IREVRNN_INLINE V load(const float* from) const {
    if constexpr (!cut) return load_whole(from);
    V x{};
    memcpy(&x, from, count * sizeof(float));
    return x;
  }
  IREVRNN_INLINE void store(float* to, const V& x) const {
    if constexpr (cut) {
      memcpy(to, &x, count * sizeof(float));
    } else {
      store_whole(to, x);
    }
  }
  IREVRNN_INLINE void stream(float* to, const V& x) const {
    if constexpr (cut) {
      store(to, x);
    } else {
      irevrnn::each<N>([&](auto i) { stream_vector(to + i.value * vector_lanes, x.part[i.value]); });
    }
  }
};

// Tiles of N vectors, then smaller ones for what is left: a tile that is cut short is slow, so it is one
// vector wide.
template <int N, template <int, bool> class Tile = VectorTile>
struct VectorTiles {
  static constexpr int width = N * vector_lanes;
  template <class Fn>
  static void each(int64_t first, int64_t past_last, const Fn& fn) {
    for (; first + width <= past_last; first += width) fn(Tile<N, false>{}, first);
    if (first >= past_last) return;
    if constexpr (N > 1) {
      VectorTiles<N / 2, Tile>::each(first, past_last, fn);
    } else {
      Tile<N, true> tile;
      tile.count = static_cast<int>(past_last - first);
      fn(tile, first);
    }
  }
  template <class Fn>
  static void each_reversed(int64_t first, int64_t past_last, const Fn& fn) {
    const int64_t whole = first + (past_last - first) / width * width;
    if (whole < past_last) {
      if constexpr (N > 1) {
        VectorTiles<N / 2, Tile>::each_reversed(whole, past_last, fn);
      } else {
        each(whole, past_last, fn);
      }
    }
    for (int64_t lane = whole - width; lane >= first; lane -= width) fn(Tile<N, false>{}, lane);
  }
};

}  // namespace irevrnn
