// Cuts a fixed-point scan in vectors into chunks, tiles and blocks like scan_driver.h. Every chunk of lanes has a
// bit stack of its own; the inverse goes through its blocks and tiles in exactly the reverse order. A tile here also has L,
// the fixed-point numbers of its lanes, and the operations that act on the bit stack, for all lanes in a fixed order.
#pragma once

#include "fixed_cell.h"
#include "scan_driver.h"
#include "word_stack.h"

namespace irevrnn {

// Returns `end`, or the step of which a number does not fit the scales; then the states and the stack stay as they are.
template <class Cell, class Tile, class T>
IREVRNN_FLATTEN int64_t fixed_forward_tile(const FixedForward<T>& s, const Cell& cell, Tile tile, Bits& stack, int64_t lane,
                                           int64_t begin, int64_t end, int64_t ahead) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const Scales<V>& of = cell.scales;
  Bits bits = stack;  // a copy, as it may stay in registers
  L h = tile.load(s.h + lane);
  L c = tile.load(s.c + lane);
  if (tile.out_of_range(h) || tile.out_of_range(c)) return begin;
  if (T* border = s.border(s.saved, begin)) tile.store(border + lane, of.c.values_of(c));
  for (int64_t t = begin; t < end; ++t) {
    V largest{};
    const L p = cell.step(h, c, t, offset_of(s.first_step + t), bits, largest, largest);
    const int64_t at = s.row(t) + lane;
    expect_rows<Cell::turns, Tile>(s, at + ahead);
    const V z = of.h.quanta_of(tile.load(s.z + at));
    largest = larger(largest, absolute(z));  // last, as a NaN stays from here on
    const L y = plus(nearest(z), p);
    if (__builtin_expect(!all_below(largest, range) || tile.out_of_range(y), 0)) return t;
    h = tile.forget_output(s.activation, y, bits);
    tile.store(s.out + at, of.h.values_of(h));
  }
  stack = bits;
  tile.store(s.h + lane, h);
  tile.store(s.c + lane, c);
  return end;
}

// The resets before a step, in the lanes' order, and undone.
template <class T>
void forget_resets(const FixedPass<T>& s, const Cuts<T>& cuts, int64_t t, Bits& bits) {
  cuts.each_reset(t, [&](int64_t first, int64_t past_last) {
    for (int64_t i = first; i < past_last; ++i) forget_reset(s.h[i], s.c[i], bits);
  });
}

template <class T>
void recall_resets(const FixedPass<T>& s, const Cuts<T>& cuts, int64_t t, Bits& bits) {
  cuts.template each_reset<-1>(t, [&](int64_t first, int64_t past_last) {
    for (int64_t i = past_last - 1; i >= first; --i) recall_reset(s.h[i], s.c[i], bits);
  });
}

// Steps end - 1 down to begin undone.
template <class Cell, class Tile, class T>
IREVRNN_FLATTEN void fixed_inverse_tile(const FixedInverse<T>& s, const Cell& cell, Tile tile, Bits& stack, int64_t lane,
                                        int64_t begin, int64_t end, int64_t ahead) {
  using V = typename Tile::V;
  using L = typename Tile::L;
  const Scales<V>& of = cell.scales;
  Bits bits = stack;
  L h = tile.load(s.h + lane);
  L c = tile.load(s.c + lane);
  for (int64_t t = end - 1; t >= begin; --t) {
    const int64_t at = s.row(t) + lane;
    expect_rows<Cell::turns, Tile>(s, at + ahead);
    tile.store(s.out + at, of.h.values_of(h));
    const L p = minus(tile.recall_output(s.activation, h, bits), nearest(of.h.quanta_of(tile.load(s.z + at))));
    h = cell.undo(p, c, t, offset_of(s.first_step + t), bits);
  }
  if (T* border = s.border(s.saved, begin)) tile.store(border + lane, of.c.values_of(c));
  stack = bits;
  tile.store(s.h + lane, h);
  tile.store(s.c + lane, c);
}

template <class Tile>
Bits& room_for(WordStack& stack, int64_t words_of_step, int64_t steps, int64_t resets) {
  return stack.with_room((steps * words_of_step + resets * words_of_reset) * Tile::width);
}

// The changes of scales of a tile's lanes, which are few. Between two calls all states are in memory.
template <class T>
class LaneScales {
 public:
  // s: FixedForward or FixedInverse, whose lanes these are. Steps go to `end`, where a block ends.
  LaneScales(const FixedPass<T>& s, WordStack& stack, int64_t stream, int64_t lane, int64_t count, int64_t end)
      : s_(s), stack_(stack), place_(s.places[stream]), first_(lane), past_last_(lane + count), end_(end) {}

  // Before step t, where lanes are cut: those that begin.
  void begin(const Cuts<T>& cuts, int64_t t) {
    if (t == 0) {
      for (int64_t i = first_; i < past_last_; ++i) begin_at(i, t, s_.resets && s_.resets_at(t)[i / s_.hidden]);
    } else {
      cuts.each_reset(t, [&](int64_t first, int64_t past_last) {
        for (int64_t i = first; i < past_last; ++i) begin_at(i, t, true);
      });
    }
  }
  // Before the block that begins at step t: those that are coarse.
  void refine(int64_t t) {
    const int32_t *of_h = s_.bits_h + first_, *of_c = s_.bits_c + first_;
    int32_t fewest = usual_bits;  // so that the loop compiles to vectors
    for (int i = 0; i < past_last_ - first_; ++i) fewest = smaller(fewest, smaller(of_h[i], of_c[i]));
    if (fewest == usual_bits) return;
    for (int64_t i = first_; i < past_last_; ++i) {
      if (is_coarse(s_.bits_h[i], s_.bits_c[i])) rescale(i, t, to_finer_scales(s_, load_lane(s_, i), i, t, end_));
    }
  }
  // Where step t does not fit. Returns whether it does now.
  bool coarsen(int64_t t) {
    bool changed = false;
    for (int64_t lane = first_; lane < past_last_; ++lane) {
      Rescaling by;
      const bool fits = find_scales(load_lane(s_, lane), by, [&](const LaneState& tried) {
        NoBits none;
        const T z = s_.z[s_.row(t) + lane];
        const uint32_t offset = offset_of(s_.first_step + t);
        const ChosenActivation f{s_.coupling_activation};
        if (s_.angle) return lane_step(LaneTurns<T>(s_, f, lane), tried, z, t, offset, none);
        return lane_step(LaneCouplings<any, ChosenActivation, T>(s_, f, lane), tried, z, t, offset, none);
      });
      if (!fits) return false;
      rescale(lane, t, by);
      changed |= static_cast<bool>(by);
    }
    return changed;
  }
  // The step of the last change from `first` on, or -1.
  int64_t last_from(int64_t first) const {
    const int64_t lane = lane_of_place(place_), t = step_of_place(place_) - s_.first_step;
    return lane >= first_ && lane < past_last_ && t >= first ? smaller(t, end_) : -1;
  }
  void undo_last() {
    const int64_t lane = lane_of_place(place_);
    change(lane, [](const Stacked<Bits>& after) { return pop_rescaling(after); });
  }

 private:
  void begin_at(int64_t lane, int64_t t, bool reset) {
    LaneState x = load_lane(s_, lane);
    Rescaling noted;
    begin_lane(s_, x, lane, t, reset, [&](const Rescaling& by) { noted = by; });
    store_lane(s_, lane, x);
    rescale(lane, t, noted);
  }
  void rescale(int64_t lane, int64_t t, const Rescaling& by) {
    if (!by) return;
    const int64_t place = place_of(s_.first_step + t, lane);
    change(lane, [&](const Stacked<Bits>& before) { return push_rescaling(before, by, place); });
  }
  template <class Fn>
  void change(int64_t lane, const Fn& fn) {
    Bits& bits = stack_.with_room(words_of_rescaling);
    const Stacked<Bits> changed = fn({load_lane(s_, lane), place_, bits});
    store_lane(s_, lane, changed.x);
    place_ = changed.place;
    bits = changed.bits;
  }

  const FixedPass<T>& s_;
  WordStack& stack_;
  int64_t& place_;
  int64_t first_, past_last_, end_;
};

// Calls fn(cell) with that of a tile in its scales. scratch: (1 + 2R, width), for the weights with their factors.
template <class Tiles, class Tile, class T, class Fn>
IREVRNN_INLINE void with_fixed_cell(const FixedPass<T>& s, const Tile& tile, UnitRows<const T> rows, int64_t lane, T* scratch,
                                    const Fn& fn) {
  using V = typename Tile::V;
  const Scales<V> scales{scale_of<V>(tile.load(s.bits_h + lane)), scale_of<V>(tile.load(s.bits_c + lane))};
  if (s.angle) return fn(FixedTurns<Tile, T>{tile, scales, s, lane});
  with_coupling<Tiles>(s, tile, [&]<class F>(const F& f) {
    const V of_a = factor_of_weight<F>(scales.h, scales.c), of_b = factor_of_weight<F>(scales.c, scales.h);
    for (int i = 1; i < 1 + 2 * s.couplings; ++i) {
      Tile::store_whole(scratch + i * Tile::width, Tile::load_whole(rows.row(i)) * (i <= s.couplings ? of_a : of_b));
    }
    const TileWeights<Tile> weights{{scratch, Tile::width}, s.couplings};
    const auto decay = tile.decay(Tile::load_whole(rows.row(0)));
    fn(FixedCouplings<F, Tile, TileWeights<Tile>>{tile, scales, f, s.couplings, weights, decay});
  });
}

template <class Tiles, class T>
void run(FixedForward<T>& s) {
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  const int64_t words_of_step = most_words(s.activation, static_cast<bool>(s.decay));
  s.words.resize(count_chunks(s.lanes(), Tiles::width));
  std::vector<WordStack> stacks(s.words.size());
  share_chunks(s.lanes(), Tiles::width, [&](const std::vector<Chunk>& chunks) {
    Array<T> scratch((1 + 2 * s.couplings) * Tiles::width);
    for (const Chunk& chunk : chunks) stacks[chunk.index].tail() = Tail::of(s.tails[chunk.index]);
    for_each_tile<Tiles>(s, chunks, [&](auto tile, const Place& at, int64_t begin) {
      using Tile = decltype(tile);
      const int64_t bad_step = __atomic_load_n(&s.bad_step, __ATOMIC_RELAXED);
      if (bad_step >= 0 && bad_step < begin) return;
      WordStack& stack = stacks[at.chunk];
      const Cuts<T> cuts(s, at.lane, tile.count, begin, at.end);
      LaneScales<T> scales(s, stack, at.chunk, at.lane, tile.count, at.end);
      const auto room = [&]() -> Bits& { return room_for<Tile>(stack, words_of_step, at.end - begin, cuts.count()); };
      const auto run_to = [&](int64_t first, int64_t past_last) {
        int64_t reached = 0;
        with_fixed_cell<Tiles>(s, tile, rows.at(at.lane % s.hidden), at.lane, scratch.data(), [&](const auto& cell) {
          reached = fixed_forward_tile(s, cell, tile, room(), at.lane, first, past_last, at.ahead);
        });
        return reached;
      };
      bool fits = true;
      cuts.each([&](int64_t first, int64_t past_last) {
        forget_resets(s, cuts, first, room());
        scales.begin(cuts, first);
        if (first == begin) scales.refine(begin);
        while (first < past_last && fits) {
          const int64_t reached = run_to(first, past_last);
          if (reached < past_last) {
            if (reached > first) run_to(first, reached);  // once more, as all of it fits
            fits = scales.coarsen(reached);
            if (!fits) note_step(&s.bad_step, reached);
          }
          first = reached;
        }
      });
      if (!s.record) stack.clear();
    });
    for (const Chunk& chunk : chunks) {
      s.words[chunk.index] = stacks[chunk.index].all();
      s.tails[chunk.index] = stacks[chunk.index].tail().number();
    }
  });
}

template <class Tiles, class T>
void run(FixedInverse<T>& s) {
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  const int64_t words_of_step = most_words(s.activation, static_cast<bool>(s.decay));
  std::vector<WordStack> stacks(s.streams);
  share_chunks(s.lanes(), Tiles::width, [&](const std::vector<Chunk>& chunks) {
    Array<T> scratch((1 + 2 * s.couplings) * Tiles::width);
    for (const Chunk& chunk : chunks) {
      const int64_t i = chunk.index;
      if (s.is_sound(i)) stacks[i] = WordStack(s.words + s.starts[i], s.counts[i]);
      stacks[i].tail() = Tail::of(s.tails[i]);
    }
    for_each_tile<Tiles, -1, -1>(s, chunks, [&](auto tile, const Place& at, int64_t begin) {
      using Tile = decltype(tile);
      WordStack& stack = stacks[at.chunk];
      const Cuts<T> cuts(s, at.lane, tile.count, begin, at.end);
      LaneScales<T> scales(s, stack, at.chunk, at.lane, tile.count, at.end);
      const auto room = [&]() -> Bits& { return room_for<Tile>(stack, words_of_step, at.end - begin, cuts.count()); };
      const auto run_back = [&](int64_t first, int64_t past_last) {
        with_fixed_cell<Tiles>(s, tile, rows.at(at.lane % s.hidden), at.lane, scratch.data(), [&](const auto& cell) {
          fixed_inverse_tile(s, cell, tile, room(), at.lane, first, past_last, at.ahead);
        });
      };
      cuts.each_reversed([&](int64_t first, int64_t past_last) {
        int64_t change;
        while ((change = scales.last_from(first)) >= 0) {
          if (change < past_last) run_back(change, past_last);
          past_last = smaller(past_last, change);
          scales.undo_last();
        }
        if (first < past_last) run_back(first, past_last);
        recall_resets(s, cuts, first, room());
      });
    });
    for (const Chunk& chunk : chunks) {
      const int64_t i = chunk.index;
      s.counts[i] = !s.is_sound(i) || stacks[i].ran_dry() ? -1 : stacks[i].size();
      s.tails[i] = stacks[i].tail().number();
    }
  });
}

}  // namespace irevrnn
