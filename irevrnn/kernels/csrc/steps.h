// The steps of both kinds of oscillators, of tiles (scan_tile.h) and of threads, whose tile is one lane.
#pragma once

#include "cell.h"
#include "rotation.h"
#include "scan.h"

namespace irevrnn {

// A step with couplings, from h and c before it to those after it. keep_all: whether f(p) and f(c) are saved.
template <bool keep_all, class T, class F, class Weights, class Tile, class Z, class V>
IREVRNN_INLINE void couple_step(const Forward<T>& s, const F& f, int couplings, const Weights& w, const Tile& tile,
                                int64_t lane, int64_t t, int64_t row, const Z& z, V& h, V& c) {
  V p = w.u() * h;
  couple(f, p, c, couplings, w, [&](int i, const V& f_p, const V& f_c) {
    if constexpr (keep_all) {
      const int64_t width = s.lanes_at(t);
      T* values = s.saved + 2 * (row * couplings + i * width) + lane;
      tile.store(values, f_p);
      tile.store(values + width, f_c);
    }
  });
  h = output(s.activation, z() + p);
}

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

// A cell, as scan_tile.h describes it.
struct TurningCell {
  static constexpr bool turns = true;
  static constexpr int values = 1;  // c before the step
  TurningCell at(int) const { return {}; }

  template <class T, class Tile, class V>
  IREVRNN_INLINE void step(const Forward<T>& s, const Tile& tile, int64_t lane, int64_t, int64_t row, V& h, V& c) const {
    const Turn<V> turn(s, tile, lane, row);
    rotate(turn.rotation, h, c);
    h = fma(turn.factor, h, tile.load(s.z + row + lane));
    c = turn.factor * c;
  }

  template <int, class T, class Tile, class H, class V>
  IREVRNN_INLINE void replay(const Backward<T>& s, const Tile& tile, int64_t lane, int64_t t, const H& h, V& c,
                             T* values) const {
    Tile::store_whole(values, c);
    const Turn<V> turn(s, tile, lane, s.row(t));
    V p = h();
    rotate(turn.rotation, p, c);
    c = turn.factor * c;
  }

  // The gradients of what all steps share are summed over a block on their own first.
  template <class Tile, int>
  struct Sums {
    typename Tile::V angle{}, decay{};
    IREVRNN_INLINE explicit Sums(const TurningCell&) {}

    template <class T>
    IREVRNN_INLINE void end_block(const Backward<T>& s, const Tile& tile, int64_t lane) const {
      add(tile, s.grad_angle, lane, angle);
      add(tile, s.grad_decay, lane, decay);
    }

   private:
    template <class T>
    IREVRNN_INLINE static void add(const Tile& tile, const Rows<T>& rows, int64_t lane, const typename Tile::V& sum) {
      if (rows && !rows.of_steps) tile.store(rows.first + lane, tile.load(rows.first + lane) + sum);
    }
  };

  template <int stride, class T, class Tile, class H, class V>
  IREVRNN_INLINE void back(const Backward<T>& s, const Tile& tile, int64_t lane, int64_t t, const H& h, const T* values,
                           V& d, V& d_c, Sums<Tile, stride>& sums) const {
    const int64_t row = s.row(t);
    tile.store(s.grad_z + row + lane, d);
    const Turn<V> turn(s, tile, lane, row);
    V p = h(), q = Tile::load_whole(values), of_decay;
    rotate(turn.rotation, p, q);
    const V of_angle = turn_back(turn.rotation, turn.factor, p, q, d, d_c, of_decay);
    keep(tile, s.grad_angle, row + lane, of_angle, sums.angle);
    if (s.decay) keep(tile, s.grad_decay, row + lane, of_decay, sums.decay);
  }

 private:
  template <class Tile, class V, class T>
  IREVRNN_INLINE static void keep(const Tile& tile, const Rows<T>& rows, int64_t at, const V& gradient, V& sum) {
    if (rows.of_steps) {
      tile.store(rows.first + at, gradient);
    } else {
      sum = sum + gradient;
    }
  }
};

}  // namespace irevrnn
