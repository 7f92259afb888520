// The fixed-point recurrence over a tile. A tile here also has L, the fixed-point numbers of its lanes,
// load_long, store_long and the operations that act on each lane's bit stack in a fixed order.
#pragma once

#include "fixed_cell.h"
#include "fixed_scan.h"
#include "scan_tile.h"

namespace irevrnn {

template <class T>
struct FixedScalarTile : ScalarTile<T> {
  using L = int64_t;
  using DecayL = Decay<int64_t>;

  static DecayL decay(T u) {
    const double n = std::abs(static_cast<double>(u)) * decay_one;
    return {static_cast<int64_t>(n), 1.0 / n, u < 0 ? -1 : 0};
  }
  static L load_long(const int64_t* from) { return *from; }
  static void store_long(int64_t* to, L x) { *to = x; }
  static L load_state(const int64_t* from, const DecayL&) { return *from; }
  static L forget(L h, L& s, const DecayL& d, Words& w) { return irevrnn::forget(h, s, d, w); }
  static L recall(L p, L& s, const DecayL& d, Words& w) { return irevrnn::recall(p, s, d, w); }
  static L forget_output(Activation g, L y, L& s, const DecayL& d, Words& w) {
    if (g == Activation::leaky_relu) return forget_leak(y, s, d, w);
    if (g == Activation::relu) return forget_negative(y, true, w);
    return y;
  }
  static L recall_output(Activation g, L h, L& s, const DecayL& d, Words& w) {
    if (g == Activation::leaky_relu) return recall_leak(h, s, d, w);
    if (g == Activation::relu) return recall_negative(h, true, w);
    return h;
  }
  static bool out_of_range(L x) { return x >= range || x <= -range; }
};

template <Activation f, class Tile, class T>
void fixed_forward_tile(FixedForward<T>& s, Tile tile, TileWeights<Tile> w, Words& words, int64_t lane,
                        int64_t begin, int64_t end, int64_t& bad_step) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const int64_t row = s.lanes();
  const typename Tile::DecayL decay = tile.decay(w.u());
  L h = tile.load_long(s.states.h + lane);
  L c = tile.load_long(s.states.c + lane);
  L state = tile.load_state(s.states.s + lane, decay);
  if (s.held && begin > 0) tile.store_long(s.held + (begin / s.interval - 1) * row + lane, c);
  for (int64_t t = begin; t < end; ++t) {
    L p = tile.forget(h, state, decay, words);
    if (s.p_0) tile.store_long(s.p_0 + t * row + lane, p);
    couple_fixed<f, V>(p, c, s.couplings, w, [](int, const V&, const V&) {});
    const L y = fixed_of(tile.load(s.z + t * row + lane)) + p;
    if (__builtin_expect(tile.out_of_range(y) || tile.out_of_range(c), 0)) {
      if (bad_step < 0 || t < bad_step) bad_step = t;
      break;
    }
    h = tile.forget_output(s.activation, y, state, decay, words);
    tile.store(s.out + t * row + lane, values_of<V>(h));
  }
  tile.store_long(s.states.h + lane, h);
  tile.store_long(s.states.c + lane, c);
  tile.store_long(s.states.s + lane, state);
}

// Steps end - 1 down to begin undone.
template <Activation f, class Tile, class T>
void fixed_inverse_tile(FixedInverse<T>& s, Tile tile, TileWeights<Tile> w, Words& words, int64_t lane,
                        int64_t begin, int64_t end) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const int64_t row = s.lanes();
  const typename Tile::DecayL decay = tile.decay(w.u());
  L h = tile.load_long(s.states.h + lane);
  L c = tile.load_long(s.states.c + lane);
  L state = tile.load_state(s.states.s + lane, decay);
  for (int64_t t = end - 1; t >= begin; --t) {
    tile.store(s.out + t * row + lane, values_of<V>(h));
    L p = tile.recall_output(s.activation, h, state, decay, words) -
          fixed_of(tile.load(s.z + t * row + lane));
    uncouple_fixed<f, V>(p, c, s.couplings, w);
    tile.store_long(s.p_0 + t * row + lane, p);
    h = tile.recall(p, state, decay, words);
  }
  if (begin > 0) tile.store_long(s.held + (begin / s.interval - 1) * row + lane, c);
  tile.store_long(s.states.h + lane, h);
  tile.store_long(s.states.c + lane, c);
  tile.store_long(s.states.s + lane, state);
}

// The replay of backward_tile (scan_tile.h): what decayed is kept, so only the couplings are repeated.
template <Activation f, class Tile, class T>
void replay_tile(const FixedBackward<T>& s, Tile tile, TileWeights<Tile> w, int64_t lane, int64_t begin,
                 int64_t end, T* values) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const int64_t row = s.lanes();
  L c = tile.load_long(
      (begin == 0 ? s.fixed_c_0 : s.fixed_held + (begin / s.interval - 1) * row) + lane);
  for (int64_t t = begin; t < end; ++t) {
    L p = tile.load_long(s.p_0 + t * row + lane);
    couple_fixed<f, V>(p, c, s.couplings, w, [&](int, const V& f_p, const V& f_c) {
      Tile::store_whole(values, f_p);
      Tile::store_whole(values + Tile::width, f_c);
      values += 2 * Tile::width;
    });
  }
}

}  // namespace irevrnn
