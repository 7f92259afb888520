// The fixed-point recurrence of one lane, the work of a thread on a device or on the CPU (grid.h): forward, inverse,
// and the moving of its words.
//
// Each lane has a bit stack of its own: its state s stays in a register, and nothing is exchanged between
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

#if !defined(__CUDACC__)
#include <atomic>
#endif

namespace irevrnn {

// The weights of a unit, those of the couplings in units of 2^-36.
template <class T, int R>
struct FixedWeights {
  UnitWeights<T, R> w;
  IREVRNN_INLINE T a(int i) const { return w.a(i) * broadcast<T>(units); }
  IREVRNN_INLINE T b(int i) const { return w.b(i) * broadcast<T>(units); }
};

template <class T>
IREVRNN_INLINE Decay<int64_t> lane_decay(T u) {
  const double n = absolute(static_cast<double>(u)) * decay_one;
  return {to_long(n), 1.0 / n, u < 0 ? -1 : 0};
}

// The words that a lane pushes, one below the other in its column.
struct WordColumn {
  uint16_t* first;  // or null: they are counted, and not kept
  int64_t row, count;

  IREVRNN_INLINE void push(bool which, int64_t word) {
    if (!which) return;
    if (first) first[count * row] = static_cast<uint16_t>(word);
    ++count;
  }
};

// A lane's words from the last on; zeros when there are none left, which a buffer that was tampered with
// may ask for. left is negative from then on.
class WordReader {
 public:
  IREVRNN_INLINE WordReader(const uint16_t* words, int64_t left) : words_(words), left_(left) { fetch(); }

  IREVRNN_INLINE int64_t pop(bool which) {
    if (!which) return 0;
    const int64_t word = top_;
    left_ = left_ > 0 ? left_ - 1 : -1;
    fetch();
    return word;
  }
  IREVRNN_INLINE int64_t left() const { return left_; }

 private:
  IREVRNN_INLINE void fetch() { top_ = left_ > 0 ? words_[left_ - 1] : 0; }

  const uint16_t* words_;
  int64_t left_;
  uint16_t top_;
};

// The numbers of one lane step by step, two of them on their way from memory while one is worked on.
template <class T>
class Ahead {
 public:
  IREVRNN_INLINE Ahead(const T* first, int64_t stride, int64_t count)
      : from_(first), stride_(stride), count_(count) {
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
    const T x = *from_;
    from_ += stride_;
    --count_;
    return x;
  }

  const T* from_;
  int64_t stride_, count_;
  T next_, after_;
};

// Writes a step's values of f, row by row.
template <class T>
struct LaneValues {
  T* first;  // or null
  int64_t row;
  IREVRNN_INLINE void operator()(int i, T f_p, T f_c) const {
    if (!first) return;
    first[2 * i * row] = f_p;
    first[(2 * i + 1) * row] = f_c;
  }
};

template <class T>
IREVRNN_INLINE LaneValues<T> lane_values(const FixedPass<T>& s, int64_t t, int64_t lane) {
  return {s.values ? s.values + t * 2 * s.couplings * s.lanes() + lane : nullptr, s.lanes()};
}

IREVRNN_INLINE bool out_of_range(int64_t x) { return x >= range || x <= -range; }

template <class Stack>
IREVRNN_INLINE int64_t forget_output(Activation g, int64_t y, int64_t& s, const Decay<int64_t>& d,
                                     Stack& words) {
  if (g == Activation::leaky_relu) return forget_leak(y, s, d, words);
  if (g == Activation::relu) return forget_negative(y, words);
  return y;
}

template <class Stack>
IREVRNN_INLINE int64_t recall_output(Activation g, int64_t h, int64_t& s, const Decay<int64_t>& d,
                                     Stack& words) {
  if (g == Activation::leaky_relu) return recall_leak(h, s, d, words);
  if (g == Activation::relu) return recall_negative(h, words);
  return h;
}

// The smaller of two steps, where -1 is none: the largest there is without a sign. The order in which
// threads come here makes no difference.
IREVRNN_INLINE void note_step(int64_t* earliest, int64_t t) {
  auto* at = reinterpret_cast<unsigned long long*>(earliest);
  const auto step = static_cast<unsigned long long>(t);
#if defined(__CUDA_ARCH__)
  atomicMin(at, step);
#elif !defined(__CUDACC__)
  const std::atomic_ref<unsigned long long> least(*at);
  for (unsigned long long seen = least; step < seen && !least.compare_exchange_weak(seen, step);) {
  }
#endif
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
    const int64_t row = s.lanes();
    const FixedWeights<T, R> w{UnitWeights<T, R>(s, lane % s.hidden)};
    const Decay<int64_t> decay = lane_decay(w.w.u());
    WordColumn words{s.words ? s.words + lane : nullptr, row, begin > 0 ? count : 0};
    int64_t h = s.states.h[lane], c = s.states.c[lane], state = s.states.s[lane];
    Ahead<T> inputs(s.z + begin * row + lane, row, end - begin);
    const bool begins_anew = lane_resets(s, lane, begin, begin + 1);
    int64_t bad = (out_of_range(h) || out_of_range(c)) && !begins_anew ? begin : -1;
    for_each_window<1>(s, lane, begin, end, [&](int64_t first, int64_t past_last, uint64_t resets) {
      for (int64_t t = first; t < past_last && bad < 0; ++t) {
        if (resets >> (t - first) & 1) forget_reset(h, c, words);
        const T z = inputs.take();
        int64_t p = forget(h, state, decay, words);
        T largest{};
        couple_fixed<T>(f, p, c, R == any ? s.couplings : R, w, largest, lane_values(s, t, lane));
        largest = larger(largest, absolute(z));  // last, as a NaN stays from here on
        const int64_t y = plus(fixed_of(z), p);
        if (!all_below(largest, unit * range) || out_of_range(y)) {
          bad = t;
        } else {
          h = forget_output(s.activation, y, state, decay, words);
          s.out[t * row + lane] = values_of<T>(h);
        }
      }
    });
    if (bad >= 0) note_step(s.bad_step, bad);
    count = bad >= 0 ? -1 : words.count;
    s.states.h[lane] = h;
    s.states.c[lane] = c;
    s.states.s[lane] = state;
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
    const int64_t row = s.lanes();
    const FixedWeights<T, R> w{UnitWeights<T, R>(s, lane % s.hidden)};
    const Decay<int64_t> decay = lane_decay(w.w.u());
    const int64_t start = s.starts[lane], count = s.counts[lane];
    const bool sound = start >= 0 && count >= 0 && start <= s.words_size && count <= s.words_size - start;
    WordReader words(s.words + (sound ? start : 0), sound ? count : -1);
    int64_t h = s.states.h[lane], c = s.states.c[lane], state = s.states.s[lane];
    Ahead<T> inputs(s.z + (end - 1) * row + lane, -row, end - begin);
    for_each_window<-1>(s, lane, begin, end, [&](int64_t first, int64_t past_last, uint64_t resets) {
      for (int64_t t = past_last - 1; t >= first; --t) {
        s.out[t * row + lane] = values_of<T>(h);
        const T z = inputs.take();
        int64_t p = minus(recall_output(s.activation, h, state, decay, words), fixed_of(z));
        uncouple_fixed<T>(f, p, c, R == any ? s.couplings : R, w, lane_values(s, t, lane));
        h = recall(p, state, decay, words);
        if (resets >> (t - first) & 1) recall_reset(h, c, words);
      }
    });
    s.counts[lane] = words.left();
    s.states.h[lane] = h;
    s.states.c[lane] = c;
    s.states.s[lane] = state;
  }
};

struct GatherWork {
  LaneWords s;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes) return;
    uint16_t* to = s.words + s.starts[lane];
    for (int64_t i = 0; i < s.counts[lane]; ++i) to[i] = s.columns[i * s.lanes + lane];
  }
};

}  // namespace irevrnn
