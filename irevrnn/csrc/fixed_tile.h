// The fixed-point recurrence over a tile of vectors; compare fixed_thread.h. A tile here also has L, the
// fixed-point numbers of its lanes, load_long, store_long and the operations that act on each lane's bit
// stack in a fixed order.
#pragma once

#include <algorithm>

#include "fixed_cell.h"
#include "fixed_scan.h"
#include "scan_tile.h"

namespace irevrnn {

// Writes the values of f of step t where Forward::saved has them if all are saved.
template <class T, class Tile>
struct ValuesOfStep {
  T* first;  // or null
  int64_t row;
  Tile tile;
  template <class V>
  IREVRNN_INLINE void operator()(int i, const V& f_p, const V& f_c) const {
    if (!first) return;
    tile.store(first + 2 * i * row, f_p);
    tile.store(first + (2 * i + 1) * row, f_c);
  }
};

template <class T, class Tile>
IREVRNN_INLINE ValuesOfStep<T, Tile> values_of_step(T* values, const Sizes<T>& s, Tile tile, int64_t t,
                                                    int64_t lane) {
  return {values ? values + t * 2 * s.couplings * s.lanes() + lane : nullptr, s.lanes(), tile};
}

// Of two steps that may be missing (-1).
inline int64_t earlier(int64_t s, int64_t t) { return s < 0 || (t >= 0 && t < s) ? t : s; }

template <class F, class Tile, class T>
IREVRNN_FLATTEN void fixed_forward_tile(FixedForward<T>& s, F f, Tile tile, TileWeights<Tile> w, Words& top,
                                        int64_t lane, int64_t begin, int64_t end, int64_t& bad_step) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const int64_t row = s.lanes();
  const typename Tile::DecayL decay = tile.decay(w.u());
  Words words = top;  // a copy, as it may stay in a register
  L h = tile.load_long(s.states.h + lane);
  L c = tile.load_long(s.states.c + lane);
  L state = tile.load_state(s.states.s + lane, decay);
  int64_t bad = tile.out_of_range(h) || tile.out_of_range(c) ? begin : -1;
  for (int64_t t = begin; t < end && bad < 0; ++t) {
    L p = tile.forget(h, state, decay, words);
    V largest{};
    couple_fixed<V>(f, p, c, s.couplings, w, largest,
                    values_of_step(s.values, s, tile, t, lane));
    const V z = tile.load(s.z + t * row + lane);
    largest = larger(largest, absolute(z));  // last, as a NaN stays from here on
    const L y = plus(fixed_of(z), p);
    if (__builtin_expect(!all_below(largest, unit * range) || tile.out_of_range(y), 0)) {
      bad = t;
      break;
    }
    h = tile.forget_output(s.activation, y, state, decay, words);
    tile.store(s.out + t * row + lane, values_of<V>(h));
  }
  bad_step = earlier(bad_step, bad);
  top = words;
  tile.store_long(s.states.h + lane, h);
  tile.store_long(s.states.c + lane, c);
  tile.store_long(s.states.s + lane, state);
}

// The resets before a step, in the lanes' order, and undone.
template <class T>
void forget_resets(const FixedPass<T>& s, const Cuts<T>& cuts, int64_t t, Words& top) {
  cuts.each_reset(t, [&](int64_t first, int64_t past_last) {
    for (int64_t i = first; i < past_last; ++i) forget_reset(s.states.h[i], s.states.c[i], top);
  });
}

template <class T>
void recall_resets(const FixedPass<T>& s, const Cuts<T>& cuts, int64_t t, Words& top) {
  cuts.template each_reset<-1>(t, [&](int64_t first, int64_t past_last) {
    for (int64_t i = past_last - 1; i >= first; --i) recall_reset(s.states.h[i], s.states.c[i], top);
  });
}

// Steps end - 1 down to begin undone.
template <class F, class Tile, class T>
IREVRNN_FLATTEN void fixed_inverse_tile(FixedInverse<T>& s, F f, Tile tile, TileWeights<Tile> w, Words& top,
                                        int64_t lane, int64_t begin, int64_t end) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const int64_t row = s.lanes();
  const typename Tile::DecayL decay = tile.decay(w.u());
  Words words = top;
  L h = tile.load_long(s.states.h + lane);
  L c = tile.load_long(s.states.c + lane);
  L state = tile.load_state(s.states.s + lane, decay);
  for (int64_t t = end - 1; t >= begin; --t) {
    tile.store(s.out + t * row + lane, values_of<V>(h));
    L p = minus(tile.recall_output(s.activation, h, state, decay, words),
                fixed_of(tile.load(s.z + t * row + lane)));
    uncouple_fixed<V>(f, p, c, s.couplings, w,
                      values_of_step(s.values, s, tile, t, lane));
    h = tile.recall(p, state, decay, words);
  }
  top = words;
  tile.store_long(s.states.h + lane, h);
  tile.store_long(s.states.c + lane, c);
  tile.store_long(s.states.s + lane, state);
}

}  // namespace irevrnn
