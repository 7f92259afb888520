// Where sequences begin anew: their h and c are 0 before such a step. Steps are looked up a window at a time, so that none
// waits for memory.
#pragma once

#include <algorithm>

#include "scan.h"

namespace irevrnn {

constexpr int64_t reset_window = 64;  // steps
static_assert(usual_interval <= reset_window);

// Steps [first, past_last), a window at most, before which a lane is reset: bit t - first for step t.
template <class T>
IREVRNN_INLINE uint64_t lane_resets(const Sizes<T>& s, int64_t lane, int64_t first, int64_t past_last) {
  uint64_t found = 0;
  if (!s.resets) return found;
  const int64_t sequence = lane / s.hidden;
  for (int64_t t = first; t < past_last; ++t) {
    if (s.resets_at(t)[sequence]) found |= uint64_t{1} << (t - first);
  }
  return found;
}

// Calls fn(first, past_last, resets as above) for the windows of steps [begin, end) of a lane, forwards or backwards.
template <int direction, class T, class Fn>
IREVRNN_INLINE void for_each_window(const Sizes<T>& s, int64_t lane, int64_t begin, int64_t end, const Fn& fn) {
  while (begin < end) {
    const int64_t first = direction > 0 ? begin : larger(begin, end - reset_window);
    const int64_t past_last = direction > 0 ? smaller(end, begin + reset_window) : end;
    fn(first, past_last, lane_resets(s, lane, first, past_last));
    (direction > 0 ? begin : end) = direction > 0 ? past_last : first;
  }
}

// Steps [begin, end), a window at most, of neighbouring lanes, cut where sequences among them are reset. Between two
// cuts the states of the lanes and their gradients are in memory, where those that are reset become 0.
template <class T>
class Cuts {
 public:
  Cuts(const Sizes<T>& s, int64_t lane, int64_t count, int64_t begin, int64_t end)
      : s_(s), lane_(lane), past_last_(lane + count), begin_(begin), end_(end) {
    if (!s.resets) return;
    for (int64_t i = lane / s.hidden; i * s.hidden < past_last_; ++i) {
      resets_ |= lane_resets(s, i * s.hidden, begin, end);
    }
  }

  int count() const { return __builtin_popcountll(resets_); }

  // Calls fn(first, past_last) for the steps between cuts ...
  template <class Fn>
  IREVRNN_INLINE void each(const Fn& fn) const {
    for (int64_t first = begin_, next; first < end_; first = next) {
      for (next = first + 1; next < end_ && !at(next);) ++next;
      fn(first, next);
    }
  }
  // ... and from the last to the first.
  template <class Fn>
  IREVRNN_INLINE void each_reversed(const Fn& fn) const {
    for (int64_t past_last = end_, first; past_last > begin_; past_last = first) {
      for (first = past_last - 1; first > begin_ && !at(first);) --first;
      fn(first, past_last);
    }
  }

  bool at(int64_t t) const { return resets_ >> (t - begin_) & 1; }

  // Calls fn(first, past_last) for the lanes that are reset before step t, sequence by sequence.
  template <int direction = 1, class Fn>
  void each_reset(int64_t t, const Fn& fn) const {
    if (!at(t)) return;
    const int64_t first = lane_ / s_.hidden, last = (past_last_ - 1) / s_.hidden;
    for (int64_t i = direction > 0 ? first : last; first <= i && i <= last; i += direction) {
      if (!s_.resets_at(t)[i]) continue;
      fn(std::max(lane_, i * s_.hidden), std::min(past_last_, (i + 1) * s_.hidden));
    }
  }

  // Numbers of all these lanes become 0 where they are reset before step t.
  void clear(int64_t t, T* numbers) const {
    each_reset(t, [&](int64_t first, int64_t past_last) {
      std::fill(numbers + (first - lane_), numbers + (past_last - lane_), T(0));
    });
  }

 private:
  const Sizes<T>& s_;
  int64_t lane_, past_last_, begin_, end_;
  uint64_t resets_ = 0;
};

}  // namespace irevrnn
