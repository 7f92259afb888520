// The fixed-point recurrence of one lane, the work of a thread on a device or on the CPU (grid.h): forward, inverse,
// and the moving of its words.
//
// Each lane has a bit stack of its own: its last bits stay in registers, and nothing is exchanged between
// threads. The number of words of a pass is known when it is over, so that forward writes them to a column
// of a (T * most_words, B, H) array: neighbouring lanes, which push about as often, write side by side.
// GatherWork then moves each column to its place in the words that are kept, lane after lane. In the inverse
// the topmost word waits in a register before it is asked for.
#pragma once

#include "fixed_cell.h"
#include "fixed_scan.h"
#include "grid.h"
#include "lane.h"
#include "resets.h"

namespace irevrnn {

// The weights of a unit, those of the couplings in units of f.
template <class T, int R>
struct FixedWeights {
  UnitWeights<T, R> w;
  T count;  // of units in 1
  IREVRNN_INLINE T a(int i) const { return w.a(i) * count; }
  IREVRNN_INLINE T b(int i) const { return w.b(i) * count; }
};

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
class WordReader {
 public:
  IREVRNN_INLINE WordReader(const uint32_t* words, int64_t left, const Tail& tail)
      : words_(words), left_(left), tail_(tail) {
    fetch();
  }

  IREVRNN_INLINE uint32_t pop(int n) {
    if (tail_.needs_word(n)) {
      tail_.refill(top_);
      left_ = left_ > 0 ? left_ - 1 : -1;
      fetch();
    }
    return tail_.pop(n);
  }
  IREVRNN_INLINE int64_t left() const { return left_; }
  IREVRNN_INLINE const Tail& tail() const { return tail_; }

 private:
  IREVRNN_INLINE void fetch() { top_ = left_ > 0 ? words_[left_ - 1] : 0; }

  const uint32_t* words_;
  int64_t left_;
  Tail tail_;
  uint32_t top_;
};

// z of one lane, steps begin to end or the other way round, two numbers on their way from memory while one is worked on.
template <class T, int direction>
class Ahead {
 public:
  IREVRNN_INLINE Ahead(const FixedPass<T>& s, int64_t lane, int64_t begin, int64_t end)
      : s_(s), lane_(lane), t_(direction > 0 ? begin : end - 1), count_(end - begin) {
    next_ = load();
    after_ = load();
  }
  IREVRNN_INLINE T take() {
    const T x = next_;
    next_ = after_;
    after_ = load();
    return x;
  }

 private:
  IREVRNN_INLINE T load() {
    if (count_ <= 0) return T(0);
    const T x = s_.z[s_.row(t_) + lane_];
    t_ += direction;
    --count_;
    return x;
  }

  const FixedPass<T>& s_;
  int64_t lane_, t_, count_;
  T next_, after_;
};

// The smaller of two steps, where -1 is none: the largest there is without a sign. The order in which
// threads come here makes no difference.
IREVRNN_INLINE void note_step(int64_t* earliest, int64_t t) {
  auto* at = reinterpret_cast<unsigned long long*>(earliest);
  const auto step = static_cast<unsigned long long>(t);
#if defined(__CUDA_ARCH__)
  atomicMin(at, step);
#elif !defined(__CUDACC__)
  // std::atomic_ref is missing from clang's library before version 19.
  unsigned long long seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (step < seen && !__atomic_compare_exchange_n(at, &seen, step, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
#endif
}

// The end of a lane's steps, if its sequence ends before `end`.
template <class T>
IREVRNN_INLINE int64_t end_of(const FixedPass<T>& s, int64_t lane, int64_t end) {
  return s.row_starts ? smaller(end, s.length(lane)) : end;
}

// Steps begin to end. Between two calls states and numbers of words are in memory; a negative number says
// that the lane left the range and stopped.
template <int R, class F, class T>
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
    const int64_t stop = end_of(s, lane, end);
    const Unit of_f = s.unit_of_f();
    const FixedWeights<T, R> w{UnitWeights<T, R>(s, lane % s.hidden), of_f.count};
    const Decay decay = decay_of(w.w.u());
    WordColumn bits{s.words ? s.words + lane : nullptr, s.lanes(), begin > 0 ? count : 0, Tail::of(s.tails[lane])};
    int32_t h = s.h[lane], c = s.c[lane];
    Ahead<T, 1> inputs(s, lane, begin, stop);
    const bool begins_anew = begin < stop && lane_resets(s, lane, begin, begin + 1);
    int64_t bad = (out_of_range(h) || out_of_range(c)) && !begins_anew ? begin : -1;
    for_each_window<1>(s, lane, begin, stop, [&](int64_t first, int64_t past_last, uint64_t resets) {
      for (int64_t t = first; t < past_last && bad < 0; ++t) {
        if (resets >> (t - first) & 1) forget_reset(h, c, bits);
        if (T* border = s.border(t)) border[lane] = s.unit.template values_of<T>(c);
        const T z = s.unit.units_of(inputs.take());
        int32_t p = forget(h, decay, offset_of(s.first_step + t), bits);
        T largest{};
        couple_fixed<T>(f, of_f, p, c, R == any ? s.couplings : R, w, largest);
        largest = larger(largest, absolute(z));  // last, as a NaN stays from here on
        const int32_t y = plus(nearest(z), p);
        if (!all_below(largest, range) || out_of_range(y)) {
          bad = t;
        } else {
          h = forget_output(s.activation, y, bits);
          s.out[s.row(t) + lane] = s.unit.template values_of<T>(h);
        }
      }
    });
    if (bad >= 0) note_step(s.bad_step, bad);
    count = bad >= 0 ? -1 : bits.count;
    s.h[lane] = h;
    s.c[lane] = c;
    s.tails[lane] = bits.tail.number();
  }
};

// Steps end - 1 down to begin undone.
template <int R, class F, class T>
struct FixedInverseWork {
  static constexpr int direction = -1;
  FixedInverse<T> s;
  F f;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const int64_t stop = end_of(s, lane, end);
    const Unit of_f = s.unit_of_f();
    const FixedWeights<T, R> w{UnitWeights<T, R>(s, lane % s.hidden), of_f.count};
    const Decay decay = decay_of(w.w.u());
    const bool sound = s.is_sound(lane);
    WordReader bits(s.words + (sound ? s.starts[lane] : 0), sound ? s.counts[lane] : -1, Tail::of(s.tails[lane]));
    int32_t h = s.h[lane], c = s.c[lane];
    Ahead<T, -1> inputs(s, lane, begin, stop);
    for_each_window<-1>(s, lane, begin, stop, [&](int64_t first, int64_t past_last, uint64_t resets) {
      for (int64_t t = past_last - 1; t >= first; --t) {
        s.out[s.row(t) + lane] = s.unit.template values_of<T>(h);
        const T z = s.unit.units_of(inputs.take());
        int32_t p = minus(recall_output(s.activation, h, bits), nearest(z));
        uncouple_fixed<T>(f, of_f, p, c, R == any ? s.couplings : R, w);
        h = recall(p, decay, offset_of(s.first_step + t), bits);
        if (T* border = s.border(t)) border[lane] = s.unit.template values_of<T>(c);
        if (resets >> (t - first) & 1) recall_reset(h, c, bits);
      }
    });
    s.counts[lane] = bits.left();
    s.h[lane] = h;
    s.c[lane] = c;
    s.tails[lane] = bits.tail().number();
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
