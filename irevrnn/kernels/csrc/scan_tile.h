// The recurrence over a tile: neighbouring lanes that go through a block of time steps together.
//
// Tile is how lanes are loaded and stored; it has a value type V, a width in lanes, load and store. A cell knows the steps of
// the lanes from its own on, and at(i) is that of a part of them: step() changes h and c; replay() changes c, and writes the
// rows of `values` that back() needs, which turns d and d_c, the gradients of h and c after a step, into those before it.
// h() is that state before the step.
#pragma once

#include "resets.h"
#include "steps.h"

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

// Asks for rows before they are used: steps are a row apart, mostly in different pages of memory, where the processor does
// not guess what comes next. The next tile, or after the last one the next block's first, lies `ahead` numbers on.
template <int width, bool to_write = false, class T>
IREVRNN_INLINE void prefetch(const T* from) {
  for (int i = 0; i < width; i += 64 / static_cast<int>(sizeof(T))) {
    __builtin_prefetch(from + i, to_write);
  }
}

template <class Tile, class T>
IREVRNN_INLINE void expect_turn(const Sizes<T>& s, int64_t at) {
  if (s.angle.of_steps) prefetch<Tile::width>(s.angle.first + at);
  if (s.decay.of_steps) prefetch<Tile::width>(s.decay.first + at);
}
template <bool turns, class Tile, class Pass>
IREVRNN_INLINE void expect_rows(const Pass& s, int64_t at) {
  prefetch<Tile::width>(s.z + at);
  prefetch<Tile::width, true>(s.out + at);
  if constexpr (turns) expect_turn<Tile>(s, at);
}

// Calls fn(part, its first lane here) for a tile, or for the parts of it that have room in the registers.
template <bool narrow, class Tile, class Fn>
IREVRNN_INLINE void each_part(const Tile& tile, const Fn& fn) {
  if constexpr (narrow) {
    tile.each_narrow(fn);
  } else {
    fn(tile, 0);
  }
}

// Couplings, whose values of f are saved if keep_all is true, and replayed otherwise.
template <bool keep_all, class F, class T>
struct CouplingCell {
  static constexpr bool turns = false;
  F f;
  UnitRows<const T> weights;
  int couplings, values;  // 2R, rows of f(p) and f(c) in a step
  T* gradients;           // of the weights, over a block: (1 + 2R, width of the whole tile)

  IREVRNN_INLINE CouplingCell at(int i) const { return {f, weights.at(i), couplings, values, gradients + i}; }

  template <class Tile, class V>
  IREVRNN_INLINE void step(const Forward<T>& s, const Tile& tile, int64_t lane, int64_t t, int64_t row, V& h, V& c) const {
    const auto z = [&] { return tile.load(s.z + row + lane); };
    couple_step<keep_all>(s, f, couplings, TileWeights<Tile>{weights, couplings}, tile, lane, t, row, z, h, c);
  }

  template <int stride, class Tile, class H, class V>
  IREVRNN_INLINE void replay(const Backward<T>&, const Tile&, int64_t, int64_t, const H& h, V& c, T* to) const {
    const TileWeights<Tile> w{weights, couplings};
    V p = w.u() * h();
    couple(f, p, c, couplings, w, [&](int, const V& f_p, const V& f_c) {
      Tile::store_whole(to, f_p);
      Tile::store_whole(to + stride, f_c);
      to += 2 * stride;
    });
  }

  template <class Tile, int stride>
  struct Sums : TileSums<Tile, stride> {
    IREVRNN_INLINE explicit Sums(const CouplingCell& cell) : TileSums<Tile, stride>{cell.gradients, cell.couplings} {}
    IREVRNN_INLINE void end_block(const Backward<T>&, const Tile&, int64_t) const {}
  };

  template <int stride, class Tile, class H, class V>
  IREVRNN_INLINE void back(const Backward<T>& s, const Tile& tile, int64_t lane, int64_t t, const H& h, const T* replayed,
                           V& d, V& d_c, Sums<Tile, stride>& sums) const {
    const TileWeights<Tile> w{weights, couplings};
    const int64_t at = s.row(t) + lane;
    d = d * output_slope(s.activation, tile.load(s.out + at));
    tile.store(s.grad_z + at, d);
    StepValues<Tile> of_step{tile, replayed, stride};
    if constexpr (keep_all) of_step = {tile, s.saved + s.row(t) * values + lane, s.lanes_at(t)};
    couple_backward(f, d, d_c, couplings, w, of_step, sums);
    sums.add_u(d, h());
    d = d * w.u();
  }
};

// Steps begin to end of the lanes from `lane` on. h_n and c_n carry the states on. The cell is a copy, as it may stay in
// registers.
template <class Cell, class Tile, class T>
IREVRNN_FLATTEN void forward_tile(const Forward<T>& s, Cell cell, Tile tile, int64_t lane, int64_t begin, int64_t end,
                                  int64_t ahead) {
  using V = typename Tile::V;
  V h = tile.load(s.h_n + lane), c = tile.load(s.c_n + lane);
  if (T* border = s.border(s.saved, begin)) tile.store(border + lane, c);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t row = s.row(t), at = row + lane;
    cell.step(s, tile, lane, t, row, h, c);
    expect_rows<Cell::turns, Tile>(s, at + ahead);
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

// Steps begin to end once more, from the outputs and the c before step begin, which becomes that after the last.
template <int stride, class Cell, class Tile, class T>
IREVRNN_FLATTEN void replay_tile(const Backward<T>& s, Cell cell, Tile tile, int64_t lane, int64_t begin, int64_t end,
                                 int64_t ahead, const T* before, T* c_, T* values) {
  typename Tile::V c = Tile::load_whole(c_);
  for (int64_t t = begin; t < end; ++t, values += cell.values * stride) {
    const int64_t at = s.row(t) + lane;
    // For the backward pass of this tile, and for the tile after it.
    if (s.grad_out) prefetch<Tile::width>(s.grad_out + at);
    prefetch<Tile::width>(s.out + at + ahead);
    prefetch<Tile::width, true>(s.grad_z + at);
    if constexpr (Cell::turns) expect_turn<Tile>(s, at + ahead);
    const auto h = [&] { return tile.load(output_before(s, lane, t, begin, before)); };
    cell.template replay<stride>(s, tile, lane, t, h, c, values);
  }
  Tile::store_whole(c_, c);
}

// Backpropagation through steps end - 1 down to begin. grad_h_0 and grad_c_0 carry the gradients of the states on.
template <int stride, class Cell, class Tile, class T>
IREVRNN_FLATTEN void backpropagate_tile(const Backward<T>& s, Cell cell, Tile tile, int64_t lane, int64_t begin,
                                        int64_t end, const T* before, const T* values) {
  using V = typename Tile::V;
  V d = tile.load(s.grad_h_0 + lane), d_c = tile.load(s.grad_c_0 + lane);
  typename Cell::template Sums<Tile, stride> sums(cell);
  for (int64_t t = end - 1; t >= begin; --t) {
    if (s.grad_out) d = d + tile.load(s.grad_out + s.row(t) + lane);
    const auto h = [&] { return tile.load(output_before(s, lane, t, begin, before)); };
    cell.template back<stride>(s, tile, lane, t, h, values + (t - begin) * cell.values * stride, d, d_c, sums);
  }
  sums.end_block(s, tile, lane);
  tile.store(s.grad_h_0 + lane, d);
  tile.store(s.grad_c_0 + lane, d_c);
}

// The gradients of a tile in a block, cut where sequences are reset: there grad_h_0 and grad_c_0 have those of the states.
// scratch: (block, values of the cell, width), where steps are replayed.
template <bool replays, class Cell, class Tile, class T>
void backward_tile(const Backward<T>& s, const Cell& cell, Tile tile, int64_t lane, int64_t begin, int64_t end, int64_t ahead,
                   T* scratch) {
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
  const auto values = [&](int64_t t) { return scratch + (t - begin) * cell.values * width; };
  if constexpr (replays) {
    T c[width];
    Tile::store_whole(c, tile.load(s.c_before(begin) + lane));
    cuts.each([&](int64_t first, int64_t past_last) {
      cuts.clear(first, c);
      const T* before = outputs_before(first);
      each_part<Cell::turns>(tile, [&](auto part, int i) {
        replay_tile<width>(s, cell.at(i), part, lane + i, first, past_last, ahead, before + i, c + i, values(first) + i);
      });
    });
  }
  cuts.each_reversed([&](int64_t first, int64_t past_last) {
    const T* before = outputs_before(first);
    each_part<true>(tile, [&](auto part, int i) {
      backpropagate_tile<width>(s, cell.at(i), part, lane + i, first, past_last, before + i, values(first) + i);
    });
    cuts.clear(first, s.grad_h_0 + lane);
    cuts.clear(first, s.grad_c_0 + lane);
  });
  for (T* gradients : {s.grad_h_0 + lane, s.grad_c_0 + lane}) {
    for (int i = 0; i < tile.count; ++i) gradients[i] = carried(gradients[i]);
  }
}

}  // namespace irevrnn
