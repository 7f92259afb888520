// The selective oscillator over a tile; compare scan_tile.h, and selective_thread.h.
#pragma once

#include "rotation.h"
#include "scan_tile.h"

namespace irevrnn {

// How a step turns the lanes from `lane` on, and by what it multiplies them.
template <class V>
struct Turn {
  Rotation<V> rotation;
  V factor;

  template <class T, class Tile>
  IREVRNN_INLINE Turn(const Sizes<T>& s, const Tile& tile, int64_t lane, int64_t row)
      : rotation(rotation_of(tile.load(s.angle.at(row) + lane))), factor(rotation.sign) {
    if (s.decay) factor = factor * tile.load(s.decay.at(row) + lane);
  }
};

template <class Tile, class T>
IREVRNN_INLINE void expect_turn(const Sizes<T>& s, int64_t at) {
  if (s.angle.of_steps) prefetch<Tile::width>(s.angle.first + at);
  if (s.decay.of_steps) prefetch<Tile::width>(s.decay.first + at);
}

template <class Tile, class T>
IREVRNN_FLATTEN void forward_turns(const Forward<T>& s, Tile tile, int64_t lane, int64_t begin, int64_t end, int64_t ahead,
                                   bool save_c) {
  using V = typename Tile::V;
  V h = tile.load(s.h_n + lane), c = tile.load(s.c_n + lane);
  if (save_c) tile.store(s.saved + (begin / s.interval - 1) * s.lanes() + lane, c);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t row = s.row(t), at = row + lane;
    prefetch<Tile::width>(s.z + at + ahead);
    prefetch<Tile::width, true>(s.out + at + ahead);
    expect_turn<Tile>(s, at + ahead);
    const Turn<V> turn(s, tile, lane, row);
    rotate(turn.rotation, h, c);
    h = fma(turn.factor, h, tile.load(s.z + at));
    c = turn.factor * c;
    tile.store(s.out + at, h);
  }
  tile.store(s.h_n + lane, h);
  tile.store(s.c_n + lane, c);
}

// c before each of steps begin to end once more, to rows of `values`, from the outputs and c_, which becomes that after the last.
template <int stride, class Tile, class T>
IREVRNN_FLATTEN void recompute_turns(const Backward<T>& s, Tile tile, int64_t lane, int64_t begin, int64_t end,
                                     int64_t ahead, const T* before, T* c_, T* values) {
  using V = typename Tile::V;
  V c = Tile::load_whole(c_);
  for (int64_t t = begin; t < end; ++t, values += stride) {
    const int64_t row = s.row(t), at = row + lane;
    if (s.grad_out) prefetch<Tile::width>(s.grad_out + at);
    prefetch<Tile::width>(s.out + at + ahead);
    expect_turn<Tile>(s, at + ahead);
    prefetch<Tile::width, true>(s.grad_z + at);
    Tile::store_whole(values, c);
    const Turn<V> turn(s, tile, lane, row);
    V h = tile.load(output_before(s, lane, t, begin, before));
    rotate(turn.rotation, h, c);
    c = turn.factor * c;
  }
  Tile::store_whole(c_, c);
}

// Writes gradients of a step, or adds them to those of all steps.
template <class Tile, class V, class T>
IREVRNN_INLINE void keep_gradient(const Tile& tile, const Rows<T>& rows, int64_t row, int64_t lane, const V& gradient,
                                  V& sum) {
  if (rows.of_steps) {
    tile.store(rows.first + row + lane, gradient);
  } else {
    sum = sum + gradient;
  }
}
template <class Tile, class V, class T>
IREVRNN_INLINE void add_gradient(const Tile& tile, const Rows<T>& rows, int64_t lane, const V& sum) {
  if (rows && !rows.of_steps) tile.store(rows.first + lane, tile.load(rows.first + lane) + sum);
}

// Backpropagation through steps end - 1 down to begin; values are c before each.
template <int stride, class Tile, class T>
IREVRNN_FLATTEN void backpropagate_turns(const Backward<T>& s, Tile tile, int64_t lane, int64_t begin, int64_t end,
                                         const T* before, const T* values) {
  using V = typename Tile::V;
  V d = tile.load(s.grad_h_0 + lane), d_c = tile.load(s.grad_c_0 + lane);
  V sum_of_angle{}, sum_of_decay{}, of_decay;
  for (int64_t t = end - 1; t >= begin; --t) {
    const int64_t row = s.row(t), at = row + lane;
    if (s.grad_out) d = d + tile.load(s.grad_out + at);
    tile.store(s.grad_z + at, d);
    const Turn<V> turn(s, tile, lane, row);
    V p = tile.load(output_before(s, lane, t, begin, before)), q = Tile::load_whole(values + (t - begin) * stride);
    rotate(turn.rotation, p, q);
    const V of_angle = turn_back(turn.rotation, turn.factor, p, q, d, d_c, of_decay);
    keep_gradient(tile, s.grad_angle, row, lane, of_angle, sum_of_angle);
    if (s.decay) keep_gradient(tile, s.grad_decay, row, lane, of_decay, sum_of_decay);
  }
  add_gradient(tile, s.grad_angle, lane, sum_of_angle);
  add_gradient(tile, s.grad_decay, lane, sum_of_decay);
  tile.store(s.grad_h_0 + lane, d);
  tile.store(s.grad_c_0 + lane, d_c);
}

// The gradients of a tile in a block; scratch: (block, width).
template <class Tile, class T>
void backward_turns(const Backward<T>& s, Tile tile, int64_t lane, int64_t begin, int64_t end, int64_t ahead, T* scratch) {
  constexpr int width = Tile::width;
  const auto replay = [&](int64_t first, int64_t past_last, const T* before, T* c) {
    tile.each_narrow([&](auto narrow, int i) {
      recompute_turns<width>(s, narrow, lane + i, first, past_last, ahead, before + i, c + i,
                             scratch + (first - begin) * width + i);
    });
  };
  backward_block<true>(s, tile, lane, begin, end, replay, [&](int64_t first, int64_t past_last, const T* before) {
    tile.each_narrow([&](auto narrow, int i) {
      backpropagate_turns<width>(s, narrow, lane + i, first, past_last, before + i, scratch + (first - begin) * width + i);
    });
  });
}

}  // namespace irevrnn
