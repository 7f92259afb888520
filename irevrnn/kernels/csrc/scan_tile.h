// The recurrence over a tile: neighbouring lanes that go through a block of time steps together.
//
// Tile is how lanes are loaded and stored; it has a value type V, a width in lanes, load and store.
#pragma once

#include "cell.h"
#include "resets.h"
#include "scan.h"

namespace irevrnn {

// Rows of per-unit numbers, u then a_1..a_R then b_1..b_R, continued periodically beyond H by the width
// of a tile: lanes that cross from one sequence to the next find theirs without a wrap.
template <class T>
struct UnitRows {
  T* data;
  int64_t stride;  // H + width
  UnitRows at(int64_t unit) const { return {data + unit, stride}; }
  T* row(int64_t i) const { return data + i * stride; }
};

template <class Tile>
struct TileWeights {
  UnitRows<const typename Tile::Scalar> rows;
  int couplings;
  using V = typename Tile::V;
  IREVRNN_INLINE V u() const { return Tile::load_whole(rows.row(0)); }
  IREVRNN_INLINE V a(int i) const { return Tile::load_whole(rows.row(1 + i)); }
  IREVRNN_INLINE V b(int i) const { return Tile::load_whole(rows.row(1 + couplings + i)); }
};

// Values f(p_{i-1}) and f(c_i) of one step: rows 2i and 2i + 1, where they are saved or recomputed.
template <class Tile>
struct StepValues {
  Tile tile;
  const typename Tile::Scalar* data;
  int64_t stride;
  using V = typename Tile::V;
  IREVRNN_INLINE V operator[](int i) const { return tile.load(data + i * stride); }
};

// Gradients of the weights, gathered over the steps of one block, in rows like TileWeights.
template <class Tile, int stride>
struct TileSums {
  typename Tile::Scalar* data;  // (1 + 2R, stride)
  int couplings;
  using V = typename Tile::V;
  template <class Part>
  IREVRNN_INLINE void add(int64_t row, Part part, Vector x, Vector y) const {
    typename Tile::Scalar* sum = data + row * stride + part.value * vector_lanes;
    store_vector(sum, fma(x, y, load_vector(sum)));
  }
  IREVRNN_INLINE void add_u(const V& x, const V& y) const {
    each<parts_of<V>>([&](auto part) { add(0, part, part_of<part.value>(x), part_of<part.value>(y)); });
  }
  template <class Part>
  IREVRNN_INLINE void add_a(int i, Part part, Vector x, Vector y) const { add(1 + i, part, x, y); }
  template <class Part>
  IREVRNN_INLINE void add_b(int i, Part part, Vector x, Vector y) const { add(1 + couplings + i, part, x, y); }
};

// Asks for rows before they are used. Steps are a row apart, mostly in different pages of memory, where
// the processor does not guess what comes next; and one step has more instructions than it looks ahead.
// The next tile, or after the last one the next block's first, lies `ahead` numbers on.
template <int width, bool to_write = false, class T>
IREVRNN_INLINE void prefetch(const T* from) {
  for (int i = 0; i < width; i += 64 / static_cast<int>(sizeof(T))) {
    __builtin_prefetch(from + i, to_write);
  }
}

// Steps begin to end of the lanes from `lane` on. h_n and c_n carry the states on. c is saved first if it is asked for.
template <bool keep_all, class F, class Tile, class T>
void forward_tile(const Forward<T>& s, F f, Tile tile, TileWeights<Tile> w, int64_t lane,
                  int64_t begin, int64_t end, int64_t ahead, bool save_c) {
  using V = typename Tile::V;
  V h = tile.load(s.h_n + lane);
  V c = tile.load(s.c_n + lane);
  if (!keep_all && save_c) {
    tile.store(s.saved + (begin / s.interval - 1) * s.lanes() + lane, c);
  }
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = s.row(t) + lane;
    V p = w.u() * h;
    couple(f, p, c, s.couplings, w, [&](int i, const V& f_p, const V& f_c) {
      if constexpr (keep_all) {
        const int64_t row = s.lanes_at(t);
        T* values = s.saved + s.row(t) * 2 * s.couplings + 2 * i * row + lane;
        tile.store(values, f_p);
        tile.store(values + row, f_c);
      }
    });
    prefetch<Tile::width>(s.z + at + ahead);
    prefetch<Tile::width, true>(s.out + at + ahead);
    h = output(s.activation, tile.load(s.z + at) + p);
    tile.store(s.out + at, h);
  }
  tile.store(s.h_n + lane, h);
  tile.store(s.c_n + lane, c);
}

// Where the outputs of the step before t are: in `before` for the first step of some.
template <class T>
IREVRNN_INLINE const T* output_before(const Backward<T>& s, int64_t lane, int64_t t, int64_t first, const T* before) {
  return t == first ? before : s.out + s.row(t - 1) + lane;
}

// f(p) and f(c) of steps begin to end once more, from the outputs and the c before step begin, which becomes that after
// the last.
template <class F, class Tile, class T>
void recompute_tile(const Backward<T>& s, F f, Tile tile, TileWeights<Tile> w, int64_t lane,
                 int64_t begin, int64_t end, int64_t ahead, const T* before, T* c_, T* values) {
  using V = typename Tile::V;
  V c = Tile::load_whole(c_);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = s.row(t) + lane;
    // For the backward pass of this tile, and for the tile after it.
    if (s.grad_out) prefetch<Tile::width>(s.grad_out + at);
    prefetch<Tile::width>(s.out + at + ahead);
    prefetch<Tile::width, true>(s.grad_z + at);
    V p = w.u() * tile.load(output_before(s, lane, t, begin, before));
    couple(f, p, c, s.couplings, w, [&](int, const V& f_p, const V& f_c) {
      Tile::store_whole(values, f_p);
      Tile::store_whole(values + Tile::width, f_c);
      values += 2 * Tile::width;
    });
  }
  Tile::store_whole(c_, c);
}

// Backpropagation through steps end - 1 down to begin. values(t) are f(p) and f(c) of a step. grad_h_0 and grad_c_0
// carry the gradients of the states on.
template <class F, class Tile, class Sums, class Values, class T>
IREVRNN_INLINE void backpropagate(const Backward<T>& s, F f, Tile tile, TileWeights<Tile> w, Sums sums,
                                  int64_t lane, int64_t begin, int64_t end, const T* before, const Values& values) {
  using V = typename Tile::V;
  V carry = tile.load(s.grad_h_0 + lane);
  V d_c = tile.load(s.grad_c_0 + lane);
  for (int64_t t = end - 1; t >= begin; --t) {
    const int64_t at = s.row(t) + lane;
    V d = s.grad_out ? carry + tile.load(s.grad_out + at) : carry;
    d = d * output_slope(s.activation, tile.load(s.out + at));
    tile.store(s.grad_z + at, d);
    couple_backward(f, d, d_c, s.couplings, w, values(t), sums);
    sums.add_u(d, tile.load(output_before(s, lane, t, begin, before)));
    carry = d * w.u();
  }
  tile.store(s.grad_h_0 + lane, carry);
  tile.store(s.grad_c_0 + lane, d_c);
}

// Goes through the steps of a tile in a block: replay(first, past_last, the outputs before step first, c before it) for those
// between two cuts, from the first to the last, if `replays`; then back(first, past_last, the same outputs) in the reverse
// order. Between two cuts grad_h_0 and grad_c_0 have the gradients of the states.
template <bool replays, class Tile, class T, class Replay, class Back>
void backward_block(const Backward<T>& s, Tile tile, int64_t lane, int64_t begin, int64_t end, const Replay& replay,
                    const Back& back) {
  constexpr int width = Tile::width;
  const Cuts<T> cuts(s, lane, tile.count, begin, end);
  T copy[width];
  // The outputs before step t, in a copy where some of them are reset.
  const auto outputs_before = [&](int64_t t) -> const T* {
    const T* outputs = (t == 0 ? s.h_0 : s.out + s.row(t - 1)) + lane;
    if (!cuts.at(t)) return outputs;
    Tile::store_whole(copy, tile.load(outputs));
    cuts.clear(t, copy);
    return copy;
  };
  if constexpr (replays) {
    T c[width];
    Tile::store_whole(c, tile.load((begin == 0 ? s.c_0 : s.saved + (begin / s.interval - 1) * s.lanes()) + lane));
    cuts.each([&](int64_t first, int64_t past_last) {
      cuts.clear(first, c);
      replay(first, past_last, outputs_before(first), c);
    });
  }
  cuts.each_reversed([&](int64_t first, int64_t past_last) {
    back(first, past_last, outputs_before(first));
    cuts.clear(first, s.grad_h_0 + lane);
    cuts.clear(first, s.grad_c_0 + lane);
  });
  for (T* gradients : {s.grad_h_0 + lane, s.grad_c_0 + lane}) {
    for (int i = 0; i < tile.count; ++i) gradients[i] = carried(gradients[i]);
  }
}

// The gradients of a tile in a block: of the lanes' states, of z, and of the weights, which are added to `sums`
// (1 + 2R, width).
template <bool keep_all, class F, class Tile, class T>
void backward_tile(const Backward<T>& s, F f, Tile tile, UnitRows<const T> weights, T* sums, int64_t lane,
                   int64_t begin, int64_t end, int64_t ahead, T* scratch) {
  constexpr int width = Tile::width;
  const int64_t rows = 2 * s.couplings;
  const auto replay = [&](int64_t first, int64_t past_last, const T* before, T* c) {
    recompute_tile(s, f, tile, TileWeights<Tile>{weights, s.couplings}, lane, first, past_last, ahead, before, c,
                   scratch + (first - begin) * rows * width);
  };
  backward_block<!keep_all>(s, tile, lane, begin, end, replay, [&](int64_t first, int64_t past_last, const T* before) {
    tile.each_narrow([&](auto narrow, int i) {
      using Narrow = decltype(narrow);
      backpropagate(s, f, narrow, TileWeights<Narrow>{weights.at(i), s.couplings},
                    TileSums<Narrow, width>{sums + i, s.couplings}, lane + i, first, past_last, before + i,
                    [&](int64_t t) {
                      if constexpr (keep_all) {
                        return StepValues<Narrow>{narrow, s.saved + s.row(t) * rows + lane + i, s.lanes_at(t)};
                      } else {
                        return StepValues<Narrow>{narrow, scratch + (t - begin) * rows * width + i, width};
                      }
                    });
    });
  });
}

}  // namespace irevrnn
