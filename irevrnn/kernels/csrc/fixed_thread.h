// The fixed-point recurrence of one lane, the work of a thread on a device or on the CPU (grid.h).
//
// Each lane has a bit stack of its own, whose last bits stay in registers. How many words it has is known when a pass is
// over: forward writes them to a column of a (T * most_words, B, H) array, as neighbouring lanes push about as often, and
// GatherWork moves them to where they are kept, lane after lane. In the inverse the topmost word waits in a register.
#pragma once

#include "fixed_cell.h"
#include "grid.h"
#include "resets.h"

namespace irevrnn {

// The stack of a lane, whose words go below one another in its column.
struct WordColumn {
  uint32_t* first;  // or null: they are counted, and not kept
  int64_t row, count;
  Tail tail;

  IREVRNN_INLINE void push(uint32_t value, int n) {
    uint32_t word;
    if (!tail.push(value, n, word)) return;
    if (first) first[count * row] = word;
    ++count;
  }
};

// A lane's stack, whose words are read from the last on; zeros when there are none left, which a buffer that was
// tampered with may ask for. left is negative from then on.
struct WordReader {
  const uint32_t* words;
  int64_t left;
  Tail tail;
  uint32_t top;

  IREVRNN_INLINE WordReader(const uint32_t* words_, int64_t left_, const Tail& tail_)
      : words(words_), left(left_), tail(tail_) {
    fetch();
  }
  IREVRNN_INLINE void fetch() { top = left > 0 ? words[left - 1] : 0; }
  IREVRNN_INLINE uint32_t pop(int n) {
    if (tail.count < n) {
      tail.refill(top);
      left = left > 0 ? left - 1 : -1;
      fetch();
    }
    return tail.pop(n);
  }
};

// z of one lane, steps begin to end or the other way round, two numbers on their way from memory while one is worked on.
template <class T, int direction>
struct Ahead {
  const FixedPass<T>& s;
  int64_t lane, t, count;
  T next, after;

  IREVRNN_INLINE Ahead(const FixedPass<T>& s_, int64_t lane_, int64_t begin, int64_t end)
      : s(s_), lane(lane_), t(direction > 0 ? begin : end - 1), count(end - begin), next(load()), after(load()) {}
  IREVRNN_INLINE T load() {
    if (count-- <= 0) return T(0);
    const T x = s.z[s.row(t) + lane];
    t += direction;
    return x;
  }
  IREVRNN_INLINE T take() {
    const T x = next;
    next = after;
    after = load();
    return x;
  }
};

// Steps begin to end. Between two calls states and numbers of words are in memory; a negative number says
// that the lane stopped. Cells: LaneCouplings or LaneTurns.
template <class Cells, class F, class T>
struct FixedForwardWork {
  static constexpr int direction = 1;
  LaneForward<T> s;
  F f;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    int64_t& count = s.counts[lane];
    if (begin > 0 && count < 0) return;
    const int64_t stop = smaller(end, s.length(lane));
    const Cells cells(s, f, lane);
    WordColumn bits{s.words ? s.words + lane : nullptr, s.lanes(), begin > 0 ? count : 0, Tail::of(s.tails[lane])};
    LaneState x = load_lane(s, lane);
    int64_t place = s.places[lane];
    Ahead<T, 1> inputs(s, lane, begin, stop);
    bool goes_on = true;
    for_each_window<1>(s, lane, begin, stop, [&](int64_t first, int64_t past_last, uint64_t resets) {
      for (int64_t t = first; t < past_last && goes_on; ++t) {
        const auto rescale = [&](const Rescaling& by) {
          if (!by) return;
          goes_on = has_room(bits, t);
          if (!goes_on) return;
          const Stacked<WordColumn> after = push_rescaling<WordColumn>({x, place, bits}, by, place_of(s.first_step + t, lane));
          x = after.x, place = after.place, bits = after.bits;
        };
        const bool reset = resets >> (t - first) & 1;
        if (reset) forget_reset(x.h, x.c, bits);
        begin_lane(s, x, lane, t, reset, rescale);
        if (t % usual_interval == 0 && is_coarse(x.bits_h, x.bits_c)) {
          rescale(to_finer_scales(s, x, lane, t, smaller(stop, t + usual_interval)));
        }
        const T z = inputs.take();
        const uint32_t offset = offset_of(s.first_step + t);
        FixedStep result;
        for (Rescaling by;;) {  // a loop, as the compiler is to write the step out once
          const WordColumn before = bits;
          const bool fits = find_scales(x, by, [&](const LaneState& tried) {
            bits = before;
            return result = lane_step(cells, tried, z, t, offset, bits);
          });
          if (fits && !by) break;
          bits = before;
          rescale(by);
          if (!fits) note_step(s.bad_step, t);
          goes_on &= fits;
          if (!goes_on) return;
        }
        const Scales<T> scales = scales_of<T>(x);
        if (T* border = s.border(s.saved, t)) border[lane] = scales.c.values_of(x.c);
        x.h = forget_output(s.activation, result.y, bits);
        x.c = result.c;
        s.out[s.row(t) + lane] = scales.h.values_of(x.h);
      }
    });
    count = goes_on ? bits.count : -1;
    store_lane(s, lane, x);
    s.places[lane] = place;
    s.tails[lane] = bits.tail.number();
  }

  // Whether a change of scales before step t leaves rows for all that may follow.
  IREVRNN_INLINE bool has_room(const WordColumn& bits, int64_t t) const {
    const int64_t needed = words_of_rescaling + (s.steps - t) * most_words(s.activation, static_cast<bool>(s.decay)) + s.reset_rows;
    if (!s.words || bits.count + needed <= s.rows) return true;
    *s.crowded = 1;
    return false;
  }
};

// Steps end - 1 down to begin undone.
template <class Cells, class F, class T>
struct FixedInverseWork {
  static constexpr int direction = -1;
  FixedInverse<T> s;
  F f;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const int64_t stop = smaller(end, s.length(lane));
    const Cells cells(s, f, lane);
    const bool sound = s.is_sound(lane);
    WordReader bits(s.words + (sound ? s.starts[lane] : 0), sound ? s.counts[lane] : -1, Tail::of(s.tails[lane]));
    LaneState x = load_lane(s, lane);
    int64_t place = s.places[lane];
    Ahead<T, -1> inputs(s, lane, begin, stop);
    for_each_window<-1>(s, lane, begin, stop, [&](int64_t first, int64_t past_last, uint64_t resets) {
      for (int64_t t = past_last - 1; t >= first; --t) {
        const Scales<T> scales = scales_of<T>(x);
        s.out[s.row(t) + lane] = scales.h.values_of(x.h);
        const int32_t y = recall_output(s.activation, x.h, bits);
        const int32_t p = minus(y, nearest(scales.h.quanta_of(inputs.take())));
        x.h = cells.in(scales).undo(p, x.c, t, offset_of(s.first_step + t), bits);
        if (T* border = s.border(s.saved, t)) border[lane] = scales.c.values_of(x.c);
        while (place == place_of(s.first_step + t, lane)) {
          const Stacked<WordReader> before = pop_rescaling<WordReader>({x, place, bits});
          x = before.x, place = before.place, bits = before.bits;
        }
        if (resets >> (t - first) & 1) recall_reset(x.h, x.c, bits);
      }
    });
    s.counts[lane] = bits.left;
    store_lane(s, lane, x);
    s.places[lane] = place;
    s.tails[lane] = bits.tail.number();
  }
};

struct GatherWork {
  LaneWords s;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes) return;
    uint32_t* to = s.words + s.starts[lane];
    for (int64_t i = 0; i < s.counts[lane]; ++i) to[i] = s.columns[i * s.lanes + lane];
  }
};

}  // namespace irevrnn
