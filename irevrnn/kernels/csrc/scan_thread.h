// The scan of one lane, forward and backward: the work of a thread, on a device or on the CPU (grid.h).
// Compare scan_tile.h, which sums the gradients of the weights in another order.
//
// A thread goes through steps [begin, end), whole segments, and on a device all of them. States enter a later range through
// h_n and c_n, gradients an earlier one through grad_h_0 and grad_c_0. Loads of `depth` steps are under way, into registers.
#pragma once

#include "grid.h"
#include "lane.h"
#include "resets.h"
#include "steps.h"

namespace irevrnn {

// A step without couplings takes little time; two steps with many couplings hide the latency of a load.
template <class T, int R>
constexpr int depth_of = R == any || R > 2 ? 2 : R == 2 || sizeof(T) > 4 ? 4 : 8;

// Calls fn(i, t) for t = first, first + step, ..., `count` times, with i = 0 to depth - 1 round and round: ring[i] is a register.
template <int depth, int64_t step, class Fn>
IREVRNN_INLINE void for_each_step(int64_t first, int64_t count, const Fn& fn) {
  for (int64_t done = 0; done < count; done += depth) {
    each<depth>([&](auto i) {
      if (done + i.value < count) fn(i, first + step * (done + i.value));
    });
  }
}

// load(t) of coming steps, on their way; also called for steps that do not come.
template <int depth, int64_t step, class Load>
struct Ring {
  using V = std::invoke_result_t<Load, int64_t>;
  Load load;
  V next[depth];

  IREVRNN_INLINE void fill(int64_t first) {
    each<depth>([&](auto i) { next[i.value] = load(first + step * i.value); });
  }
  // The number of this step; that of `depth` steps on sets out.
  template <class Index>
  IREVRNN_INLINE V take(Index i, int64_t t) {
    const V value = next[i.value];
    next[i.value] = load(t + step * depth);
    return value;
  }
};
template <int depth, int64_t step, class Load>
IREVRNN_INLINE Ring<depth, step, Load> ring_of(const Load& load) { return {load, {}}; }

// Goes forward from the states before step `begin`; step(i, t, row, h, c) makes one, with i as in for_each_step.
template <int depth, class T, class Step>
IREVRNN_INLINE void forward_lane(const Forward<T>& s, int64_t lane, int64_t begin, int64_t end, const Step& step) {
  static_assert(reset_window % depth == 0);
  T h = (begin == 0 ? s.h_0 : s.h_n)[lane], c = (begin == 0 ? s.c_0 : s.c_n)[lane];
  for_each_window<1>(s, lane, begin, end, [&](int64_t first, int64_t past_last, uint64_t resets) {
    for_each_step<depth, 1>(first, past_last - first, [&](auto i, int64_t t) {
      if (resets >> (t - first) & 1) h = c = T(0);
      if (T* border = s.border(s.saved, t)) border[lane] = c;
      const int64_t row = s.row(t);
      step(i, t, row, h, c);
      s.out[row + lane] = h;
    });
  });
  s.h_n[lane] = h;
  s.c_n[lane] = c;
}

template <Activation f, int R, bool keep_all, class T>
struct ForwardWork {
  static constexpr int direction = 1, least_blocks = sizeof(T) > 4 ? 2 : 4;
  Forward<T> s;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    constexpr int depth = depth_of<T, R>;
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const int64_t last = smaller(end, s.length(lane));
    const UnitWeights<T, R> w(s, lane % s.hidden);
    auto z = ring_of<depth, 1>([&](int64_t t) { return t < last ? s.z[s.row(t) + lane] : T(0); });
    z.fill(begin);
    forward_lane<depth>(s, lane, begin, last, [&](auto i, int64_t t, int64_t row, T& h, T& c) {
      const T z_t = z.take(i, t);
      couple_step<keep_all>(s, CompiledActivation<f>{}, R == any ? s.couplings : R, w, LaneTile<T>{}, lane, t, row,
                            [&] { return z_t; }, h, c);
    });
  }
};

template <Activation f, int R, bool keep_all, class T>
struct BackwardWork {
  static constexpr int direction = -1, least_blocks = sizeof(T) > 4 ? 2 : 4;
  static constexpr int depth = depth_of<T, R>;
  Backward<T> s;
  int64_t begin, end;
  T* totals;  // (1 + 2R, B, H): gradients of the weights, of each lane

  // Numbers of scratch of a lane: h, f(p) and f(c) of a segment; and the sums that find no place in registers.
  static int64_t scratch_numbers(const Sizes<T>& s) {
    const int64_t row = 1 + 2 * s.couplings;
    return (keep_all ? 0 : usual_interval * row) + (R == any ? row : 0);
  }

  // Segment by segment. All values of f are saved (store), or c where segments begin (recompute): then each is replayed.
  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const int couplings = R == any ? s.couplings : R, rows = 1 + 2 * couplings;
    const int64_t last = smaller(end, s.length(lane));
    const bool from_the_end = end == s.steps;
    const Column<T> total{totals + lane, s.lanes()}, values{static_cast<T*>(thread.shared) + thread.index, thread.threads};
    const UnitWeights<T, R> w(s, lane % s.hidden);
    LaneSums<T, R> sums(couplings, total, {&values[keep_all ? 0 : usual_interval * rows], values.stride}, from_the_end);
    T carry = from_the_end ? (s.grad_h_n ? s.grad_h_n[lane] : T(0)) : s.grad_h_0[lane];
    T d_c = from_the_end ? (s.grad_c_n ? s.grad_c_n[lane] : T(0)) : s.grad_c_0[lane];

    const auto output_before = [&](int64_t t) { return t == 0 ? s.h_0[lane] : s.out[s.row(t - 1) + lane]; };
    int64_t segment_end = last, segment = (last - 1) / usual_interval * usual_interval;
    auto grads = ring_of<depth, -1>([&](int64_t t) {
      return s.grad_out && t >= begin ? s.grad_out[s.row(t) + lane] : T(0);
    });
    auto befores = ring_of<depth, keep_all ? -1 : 1>([&](int64_t t) {
      return (keep_all ? t >= begin : t < segment_end) ? output_before(t) : T(0);
    });
    auto saved = ring_of<depth, -1>([&](int64_t t) {
      using Values = Loaded<T, R == any ? any : 2 * R>;
      return t >= begin ? Values({s.saved + s.row(t) * 2 * couplings + lane, s.lanes_at(t)}) : Values();
    });
    T h = output_before(last), c = T(0);
    const auto expect_replay = [&](int64_t from) {
      befores.fill(from);
      c = s.c_before(from)[lane];
    };
    if constexpr (!keep_all) expect_replay(segment);
    bool under_way = false;  // the loads of this segment
    while (segment_end > begin) {
      const uint64_t resets = lane_resets(s, lane, segment, segment_end);
      const int64_t count = segment_end - segment, earlier = segment - usual_interval;
      if (!under_way) {
        grads.fill(segment_end - 1);
        if constexpr (keep_all) {
          befores.fill(segment_end - 1);
          saved.fill(segment_end - 1);
        }
      }
      under_way = count % depth == 0;  // otherwise their places in the rings are others
      if constexpr (!keep_all) {
        for_each_step<depth, 1>(segment, count, [&](auto i, int64_t t) {
          T before = befores.take(i, t);
          const int64_t row = (t - segment) * rows;
          values[row] = before;  // even where it is reset: the slope of the step before follows from it
          if (resets >> (t - segment) & 1) before = c = T(0);
          T p = w.u() * before;
          couple(CompiledActivation<f>{}, p, c, couplings, w, [&](int j, T f_p, T f_c) {
            values[row + 1 + 2 * j] = f_p;
            values[row + 2 + 2 * j] = f_c;
          });
        });
        // The next segment, whose loads are under way during this one's backward pass.
        if (earlier >= begin) expect_replay(earlier);
      }
      const auto step_back = [&](int64_t t, T grad, T before, const auto& values) {
        const bool reset = resets >> (t - segment) & 1;
        T d = s.grad_out ? carry + grad : carry;
        d = d * output_slope(s.activation, h);
        s.grad_z[s.row(t) + lane] = d;
        couple_backward(CompiledActivation<f>{}, d, d_c, couplings, w, values, sums);
        sums.add_u(d, reset ? T(0) : before);
        carry = reset ? T(0) : d * w.u();
        if (reset) d_c = T(0);
        h = before;
      };
      for_each_step<depth, -1>(segment_end - 1, count, [&](auto i, int64_t t) {
        const T grad = grads.take(i, t);
        if constexpr (keep_all) {
          step_back(t, grad, befores.take(i, t), saved.take(i, t));
        } else {
          const int64_t row = (t - segment) * rows;
          step_back(t, grad, values[row], Column<T>{&values[row + 1], values.stride});
        }
      });
      sums.end_segment();
      segment_end = segment;
      segment = earlier;
    }
    s.grad_h_0[lane] = carried(carry);
    s.grad_c_0[lane] = carried(d_c);
    sums.store(total);
  }
};

// The same of selective oscillators.
template <class T>
struct TurnForwardWork {
  static constexpr int direction = 1;
  Forward<T> s;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const int64_t last = smaller(end, s.length(lane));
    forward_lane<1>(s, lane, begin, last, [&](auto, int64_t t, int64_t row, T& h, T& c) {
      TurningCell().step(s, LaneTile<T>(), lane, t, row, h, c);
    });
  }
};

template <class T>
struct TurnBackwardWork {
  static constexpr int direction = -1;
  Backward<T> s;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    using Tile = LaneTile<T>;
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const TurningCell cell;
    const bool from_the_end = end == s.steps;
    T d = from_the_end ? (s.grad_h_n ? s.grad_h_n[lane] : T(0)) : s.grad_h_0[lane];
    T d_c = from_the_end ? (s.grad_c_n ? s.grad_c_n[lane] : T(0)) : s.grad_c_0[lane];
    for (int64_t past_last = smaller(end, s.length(lane)), first; past_last > begin; past_last = first) {
      first = (past_last - 1) / usual_interval * usual_interval;
      const uint64_t resets = lane_resets(s, lane, first, past_last);
      const auto is_reset = [&](int64_t t) { return (resets >> (t - first) & 1) != 0; };
      const auto before = [&](int64_t t) {
        return [=, this] { return is_reset(t) ? T(0) : t == 0 ? s.h_0[lane] : s.out[s.row(t - 1) + lane]; };
      };
      T values[usual_interval], c = s.c_before(first)[lane];
      for (int64_t t = first; t < past_last; ++t) {
        if (is_reset(t)) c = T(0);
        cell.template replay<1>(s, Tile(), lane, t, before(t), c, values + (t - first));
      }
      TurningCell::Sums<Tile, 1> sums(cell);
      for (int64_t t = past_last - 1; t >= first; --t) {
        if (s.grad_out) d += s.grad_out[s.row(t) + lane];
        cell.template back<1>(s, Tile(), lane, t, before(t), values + (t - first), d, d_c, sums);
        if (is_reset(t)) d = d_c = T(0);
      }
      sums.end_block(s, Tile(), lane);
    }
    s.grad_h_0[lane] = carried(d);
    s.grad_c_0[lane] = carried(d_c);
  }
};

}  // namespace irevrnn
