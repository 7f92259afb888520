// The selective oscillator of one lane, forward and backward; compare scan_thread.h, and selective_tile.h.
#pragma once

#include "grid.h"
#include "resets.h"
#include "rotation.h"

namespace irevrnn {

// How a step turns a lane, and by what it multiplies it.
template <class T>
struct LaneTurn {
  Rotation<T> rotation;
  T factor;

  IREVRNN_INLINE LaneTurn(const Sizes<T>& s, int64_t lane, int64_t row)
      : rotation(rotation_of(s.angle.at(row)[lane])), factor(rotation.sign) {
    if (s.decay) factor *= s.decay.at(row)[lane];
  }
};

template <class T>
struct TurnForwardWork {
  static constexpr int direction = 1;
  Forward<T> s;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    T h = (begin == 0 ? s.h_0 : s.h_n)[lane], c = (begin == 0 ? s.c_0 : s.c_n)[lane];
    int64_t border = s.saved_rows == 0 ? -1 : s.first_border(begin);
    for_each_window<1>(s, lane, begin, smaller(end, s.length(lane)), [&](int64_t first, int64_t past_last, uint64_t resets) {
      for (int64_t t = first; t < past_last; ++t) {
        if (resets >> (t - first) & 1) h = c = T(0);
        if (t == border) {
          s.saved[(t / s.interval - 1) * s.lanes() + lane] = c;
          border += s.interval;
        }
        const int64_t row = s.row(t);
        const LaneTurn<T> turn(s, lane, row);
        rotate(turn.rotation, h, c);
        h = fma(turn.factor, h, s.z[row + lane]);
        c = turn.factor * c;
        s.out[row + lane] = h;
      }
    });
    s.h_n[lane] = h;
    s.c_n[lane] = c;
  }
};

// Gradients of all steps together, a segment on its own first (LaneSums in lane.h).
template <class T>
struct LaneGradient {
  Rows<T> rows;
  T sum = T(0);
  IREVRNN_INLINE void keep(int64_t row, int64_t lane, T gradient) {
    if (rows.of_steps) {
      rows.first[row + lane] = gradient;
    } else {
      sum += gradient;
    }
  }
  IREVRNN_INLINE void end_segment(int64_t lane) {
    if (rows && !rows.of_steps) rows.first[lane] += sum;
    sum = T(0);
  }
};

template <class T>
struct TurnBackwardWork {
  static constexpr int direction = -1;
  Backward<T> s;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const bool from_the_end = end == s.steps;
    T d = from_the_end ? (s.grad_h_n ? s.grad_h_n[lane] : T(0)) : s.grad_h_0[lane];
    T d_c = from_the_end ? (s.grad_c_n ? s.grad_c_n[lane] : T(0)) : s.grad_c_0[lane];
    LaneGradient<T> of_angles{s.grad_angle}, of_decays{s.grad_decay};
    for (int64_t past_last = smaller(end, s.length(lane)), first; past_last > begin; past_last = first) {
      first = (past_last - 1) / s.interval * s.interval;
      const uint64_t resets = lane_resets(s, lane, first, past_last);
      T before[longest_interval];  // c
      T c = first == 0 ? s.c_0[lane] : s.saved[(first / s.interval - 1) * s.lanes() + lane];
      const auto rotated = [&](int64_t t, const LaneTurn<T>& turn, T& c) {
        const bool reset = resets >> (t - first) & 1;
        T h = reset ? T(0) : t == 0 ? s.h_0[lane] : s.out[s.row(t - 1) + lane];
        if (reset) c = T(0);
        rotate(turn.rotation, h, c);
        return h;
      };
      for (int64_t t = first; t < past_last; ++t) {
        before[t - first] = c;
        const LaneTurn<T> turn(s, lane, s.row(t));
        rotated(t, turn, c);
        c *= turn.factor;
      }
      for (int64_t t = past_last - 1; t >= first; --t) {
        const int64_t row = s.row(t);
        if (s.grad_out) d += s.grad_out[row + lane];
        s.grad_z[row + lane] = d;
        const LaneTurn<T> turn(s, lane, row);
        T q = before[t - first], of_decay;
        const T p = rotated(t, turn, q);
        of_angles.keep(row, lane, turn_back(turn.rotation, turn.factor, p, q, d, d_c, of_decay));
        if (s.decay) of_decays.keep(row, lane, of_decay);
        if (resets >> (t - first) & 1) d = d_c = T(0);
      }
      of_angles.end_segment(lane);
      of_decays.end_segment(lane);
    }
    s.grad_h_0[lane] = carried(d);
    s.grad_c_0[lane] = carried(d_c);
  }
};

}  // namespace irevrnn
