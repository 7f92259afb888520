// Cuts a fixed-point scan in vectors into chunks, tiles and blocks like scan_driver.h. Every chunk of lanes has a
// bit stack of its own; the inverse goes through its blocks and tiles in exactly the reverse order.
#pragma once

#include "fixed_lane.h"
#include "fixed_tile.h"
#include "scan_driver.h"
#include "word_stack.h"

namespace irevrnn {

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
        if (s_.angle) return TurningLane<T>{s_, lane}.step(tried, z, t, offset, none);
        using Cell = FixedLane<any, ChosenActivation, T>;
        return Cell(s_, {s_.coupling_activation}, lane).step(tried, z, t, offset, none);
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

// What the cells of all tiles share.
template <class Tiles, class T>
struct TileCells {
  const FixedPass<T>& s;
  Array<T> weights;
  DecayRows decays;

  explicit TileCells(const FixedPass<T>& s) : s(s), weights(unit_rows(s, Tiles::width)), decays(s, Tiles::width) {}

  // Calls fn(cell) with that of a tile. scratch: (1 + 2R, width).
  template <class Tile, class Fn>
  IREVRNN_INLINE void of(const Tile& tile, int64_t lane, T* scratch, const Fn& fn) const {
    if (s.angle) return fn(TurningTile<Tile, T>(s, tile, lane));
    const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
    with_coupling<Tiles>(s, tile, [&](const auto& f) {
      fn(OscillatingTile(s, f, tile, rows.at(lane % s.hidden), decays, lane, scratch));
    });
  }
};

template <class Tiles, class T>
void run(FixedForward<T>& s) {
  const TileCells<Tiles, T> cells(s);
  const int64_t words_of_step = most_words(s.activation, static_cast<bool>(s.decay));
  std::vector<int64_t> bad_steps(max_chunks, -1);
  s.words.resize(count_chunks(s.lanes(), Tiles::width));
  std::vector<WordStack> stacks(s.words.size());
  share_chunks(s.lanes(), Tiles::width, [&](const std::vector<Chunk>& chunks) {
    Array<T> scratch((1 + 2 * s.couplings) * Tiles::width);
    for (const Chunk& chunk : chunks) stacks[chunk.index].tail() = Tail::of(s.tails[chunk.index]);
    for (int64_t begin = 0; begin < s.steps; begin += s.block()) {
      const int64_t next = std::min(s.steps, begin + s.block());
      for_each_tile<Tiles>(s, chunks, begin, next, [&](auto tile, const Place& at) {
        using Tile = decltype(tile);
        int64_t bad_step = -1;
        if (bad_steps[at.chunk] >= 0 && bad_steps[at.chunk] < begin) return;
        WordStack& stack = stacks[at.chunk];
        const Cuts<T> cuts(s, at.lane, tile.count, begin, at.end);
        LaneScales<T> scales(s, stack, at.chunk, at.lane, tile.count, at.end);
        const auto room = [&]() -> Bits& { return room_for<Tile>(stack, words_of_step, at.end - begin, cuts.count()); };
        const auto run_to = [&](int64_t first, int64_t past_last) {
          int64_t reached = 0;
          cells.of(tile, at.lane, scratch.data(), [&](const auto& cell) {
            reached = fixed_forward_tile(s, cell, tile, room(), at.lane, first, past_last, at.ahead);
          });
          return reached;
        };
        cuts.each([&](int64_t first, int64_t past_last) {
          forget_resets(s, cuts, first, room());
          scales.begin(cuts, first);
          if (first == begin) scales.refine(begin);
          while (first < past_last && bad_step < 0) {
            const int64_t reached = run_to(first, past_last);
            if (reached < past_last) {
              if (reached > first) run_to(first, reached);  // once more, as all of it fits
              if (!scales.coarsen(reached)) bad_step = reached;
            }
            first = reached;
          }
        });
        bad_steps[at.chunk] = earlier(bad_steps[at.chunk], bad_step);
      });
      if (!s.record) {
        for (const Chunk& chunk : chunks) stacks[chunk.index].clear();
      }
    }
    for (const Chunk& chunk : chunks) {
      s.words[chunk.index] = stacks[chunk.index].all();
      s.tails[chunk.index] = stacks[chunk.index].tail().number();
    }
  });
  for (int64_t step : bad_steps) s.bad_step = earlier(s.bad_step, step);
}

template <class Tiles, class T>
void run(FixedInverse<T>& s) {
  const TileCells<Tiles, T> cells(s);
  const int64_t words_of_step = most_words(s.activation, static_cast<bool>(s.decay));
  std::vector<WordStack> stacks(s.streams);
  share_chunks(s.lanes(), Tiles::width, [&](const std::vector<Chunk>& chunks) {
    Array<T> scratch((1 + 2 * s.couplings) * Tiles::width);
    for (const Chunk& chunk : chunks) {
      const int64_t i = chunk.index;
      if (s.is_sound(i)) stacks[i] = WordStack(s.words + s.starts[i], s.counts[i]);
      stacks[i].tail() = Tail::of(s.tails[i]);
    }
    for (int64_t begin = (s.steps - 1) / s.block() * s.block(); begin >= 0; begin -= s.block()) {
      const int64_t next = std::max<int64_t>(0, begin - s.block());
      for_each_tile<Tiles, -1>(s, chunks, begin, next, [&](auto tile, const Place& at) {
        using Tile = decltype(tile);
        WordStack& stack = stacks[at.chunk];
        const Cuts<T> cuts(s, at.lane, tile.count, begin, at.end);
        LaneScales<T> scales(s, stack, at.chunk, at.lane, tile.count, at.end);
        const auto room = [&]() -> Bits& { return room_for<Tile>(stack, words_of_step, at.end - begin, cuts.count()); };
        const auto run_back = [&](int64_t first, int64_t past_last) {
          cells.of(tile, at.lane, scratch.data(), [&](const auto& cell) {
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
    }
    for (const Chunk& chunk : chunks) {
      const int64_t i = chunk.index;
      s.counts[i] = !s.is_sound(i) || stacks[i].ran_dry() ? -1 : stacks[i].size();
      s.tails[i] = stacks[i].tail().number();
    }
  });
}

}  // namespace irevrnn
