// Tiles of float lanes for the vectorised scan.
#pragma once

#include <algorithm>

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

  IREVRNN_INLINE static V all(float x) {
    return make_pack<N>([&](auto) { return broadcast<Vector>(x); });
  }
  // T is float or int32_t.
  template <class T>
  IREVRNN_INLINE static auto load_whole(const T* from) {
    return make_pack<N>([&](auto i) { return load_vector(from + i.value * vector_lanes); });
  }
  // Part by part: a copy of the pack would keep it in memory, not in registers.
  template <class T, class P>
  IREVRNN_INLINE static void store_whole(T* to, const P& x) {
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

  template <class T>
  IREVRNN_INLINE auto load(const T* from) const {
    if constexpr (cut) {
      decltype(load_whole(from)) x{};
      memcpy(&x, from, count * sizeof(T));
      return x;
    } else {
      return load_whole(from);
    }
  }
  template <class T, class P>
  IREVRNN_INLINE void store(T* to, const P& x) const {
    if constexpr (cut) {
      memcpy(to, &x, count * sizeof(T));
    } else {
      store_whole(to, x);
    }
  }
};

// Tiles of N vectors, then smaller ones for what is left: a tile that is cut short is slow, so it is one
// vector wide.
template <int N, template <int, bool> class Tile = VectorTile>
struct VectorTiles {
  static constexpr int width = N * vector_lanes;
  static int64_t fitting(int64_t lanes) {
    if constexpr (N > 1) return lanes < width ? VectorTiles<N / 2, Tile>::fitting(lanes) : width;
    return std::min<int64_t>(lanes, width);
  }
  template <class Fn>
  static void with_tile(int64_t count, const Fn& fn) {
    if (count == width) {
      fn(Tile<N, false>{});
    } else if constexpr (N > 1) {
      VectorTiles<N / 2, Tile>::with_tile(count, fn);
    } else {
      Tile<N, true> tile;
      tile.count = static_cast<int>(count);
      fn(tile);
    }
  }
};

}  // namespace irevrnn
