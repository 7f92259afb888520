// The fixed-point recurrence of one lane, which is the work of one CUDA thread: forward, back, and the
// moving of its words. cuda/fixed_scan.cu runs these functions on the GPU, fixed_scan_lanes.cpp on the CPU.
//
// Each lane has a bit stack of its own: its state s stays in a register, and nothing is exchanged between
// threads. How many words a pass pushes is known when it is over, so that forward writes them to a column
// of a (T * most_words, B, H) array: neighbouring lanes, which push about as often, write side by side.
// gather_lane then moves each column to its place in the words that are kept, lane behind lane. On the way
// back the topmost word waits in a register before it is asked for.
#pragma once

#include "fixed_cell.h"
#include "fixed_scan.h"

namespace irevrnn {

constexpr int any_number = -1;  // of couplings, known when running

// The weights of one unit, those of the couplings in units of 2^-36. Up to R = 4 they stay in registers.
template <class T, int R>
class LaneWeights {
 public:
  IREVRNN_INLINE LaneWeights(const Sizes<T>& s, int64_t unit) {
    for (int i = 0; i < R; ++i) {
      a_[i] = s.a[i * s.hidden + unit] * broadcast<T>(units);
      b_[i] = s.b[i * s.hidden + unit] * broadcast<T>(units);
    }
  }
  static IREVRNN_INLINE int couplings() { return R; }
  IREVRNN_INLINE T a(int i) const { return a_[i]; }
  IREVRNN_INLINE T b(int i) const { return b_[i]; }

 private:
  T a_[R], b_[R];
};

template <class T>
class LaneWeights<T, any_number> {
 public:
  IREVRNN_INLINE LaneWeights(const Sizes<T>& s, int64_t unit)
      : a_(s.a + unit), b_(s.b + unit), row_(s.hidden), couplings_(s.couplings) {}
  IREVRNN_INLINE int couplings() const { return couplings_; }
  IREVRNN_INLINE T a(int i) const { return a_[i * row_] * broadcast<T>(units); }
  IREVRNN_INLINE T b(int i) const { return b_[i * row_] * broadcast<T>(units); }

 private:
  const T *a_, *b_;
  int64_t row_;
  int couplings_;
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
#if defined(__CUDA_ARCH__)
  atomicMin(reinterpret_cast<unsigned long long*>(earliest), static_cast<unsigned long long>(t));
#else
  if (*earliest < 0 || t < *earliest) *earliest = t;
#endif
}

// Steps begin to end of a lane. Between two calls its states and the number of its words are in memory.
template <int R, class F, class T>
IREVRNN_INLINE void forward_lane(const LaneForward<T>& s, const F& f, int64_t lane, int64_t begin,
                                 int64_t end) {
  const int64_t row = s.lanes(), unit_index = lane % s.hidden;
  const LaneWeights<T, R> w(s, unit_index);
  const Decay<int64_t> decay = lane_decay(s.u[unit_index]);
  WordColumn words{s.words ? s.words + lane : nullptr, row, begin > 0 ? s.counts[lane] : 0};
  int64_t h = s.states.h[lane], c = s.states.c[lane], state = s.states.s[lane];
  Ahead<T> drives(s.z + begin * row + lane, row, end - begin);
  if (out_of_range(h) || out_of_range(c)) return note_step(s.bad_step, begin);
  for (int64_t t = begin; t < end; ++t) {
    const T z = drives.take();
    int64_t p = forget(h, state, decay, words);
    T largest{};
    couple_fixed<T>(f, p, c, w.couplings(), w, largest, lane_values(s, t, lane));
    largest = larger(largest, absolute(z));  // last, as a NaN stays from here on
    const int64_t y = plus(fixed_of(z), p);
    if (!all_below(largest, unit * range) || out_of_range(y)) return note_step(s.bad_step, t);
    h = forget_output(s.activation, y, state, decay, words);
    s.out[t * row + lane] = values_of<T>(h);
  }
  s.counts[lane] = words.count;
  s.states.h[lane] = h;
  s.states.c[lane] = c;
  s.states.s[lane] = state;
}

// Steps end - 1 down to begin of a lane undone.
template <int R, class F, class T>
IREVRNN_INLINE void inverse_lane(const FixedInverse<T>& s, const F& f, int64_t lane, int64_t begin,
                                 int64_t end) {
  const int64_t row = s.lanes(), unit_index = lane % s.hidden;
  const LaneWeights<T, R> w(s, unit_index);
  const Decay<int64_t> decay = lane_decay(s.u[unit_index]);
  const int64_t start = s.starts[lane], count = s.counts[lane];
  const bool sound = start >= 0 && count >= 0 && start <= s.words_size && count <= s.words_size - start;
  WordReader words(s.words + (sound ? start : 0), sound ? count : -1);
  int64_t h = s.states.h[lane], c = s.states.c[lane], state = s.states.s[lane];
  Ahead<T> drives(s.z + (end - 1) * row + lane, -row, end - begin);
  for (int64_t t = end - 1; t >= begin; --t) {
    s.out[t * row + lane] = values_of<T>(h);
    const T z = drives.take();
    int64_t p = minus(recall_output(s.activation, h, state, decay, words), fixed_of(z));
    uncouple_fixed<T>(f, p, c, w.couplings(), w, lane_values(s, t, lane));
    h = recall(p, state, decay, words);
  }
  s.counts[lane] = words.left();
  s.states.h[lane] = h;
  s.states.c[lane] = c;
  s.states.s[lane] = state;
}

IREVRNN_INLINE void gather_lane(const LaneWords& s, int64_t lane) {
  uint16_t* to = s.words + s.starts[lane];
  for (int64_t i = 0; i < s.counts[lane]; ++i) to[i] = s.columns[i * s.lanes + lane];
}

// Calls fn(R, f) with both as the kernels are compiled for: R is a constant, and any_number where R is 0 or
// larger than 4 or the numbers are not float; f is a constant where it is tanh, the default, and otherwise
// chosen by a switch that is the same for all threads.
template <class T, class Fn>
auto with_lane_kernel(const Sizes<T>& s, const Fn& fn) {
  const auto with_f = [&](auto couplings) {
    if (s.coupling_activation == Activation::tanh) {
      return fn(couplings, CompiledActivation<Activation::tanh>{});
    }
    return fn(couplings, ChosenActivation{s.coupling_activation});
  };
  if constexpr (std::is_same_v<T, float>) {
    switch (s.couplings) {
      case 1: return with_f(constant<1>{});
      case 2: return with_f(constant<2>{});
      case 3: return with_f(constant<3>{});
      case 4: return with_f(constant<4>{});
    }
  }
  return with_f(constant<any_number>{});
}

}  // namespace irevrnn
