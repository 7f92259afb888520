// The scan of one lane, forward and backward: the work of a thread, on a device or on the CPU (grid.h).
// Compare scan_tile.h, which sums the gradients of the weights in another order.
//
// A thread goes through steps [begin, end), where begin is the first of a segment: all of them on a device.
// States enter a later range through h_n and c_n, their gradients an earlier one through grad_h_0 and grad_c_0.
// The loads of the next `depth` steps are under way, into registers, while a step is computed.
#pragma once

#include "cell.h"
#include "grid.h"
#include "lane.h"
#include "resets.h"

namespace irevrnn {

// A step without couplings takes little time; two steps with many couplings hide the latency of a load.
template <class T, int R>
constexpr int depth_of = R == any || R > 2 ? 2 : R == 2 || sizeof(T) > 4 ? 4 : 8;

// Calls fn(i, t) for t = first, first + step, ... until `count` are done, with i = 0, 1, ..., depth - 1
// round and round, as constants: so ring[i] is a register.
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

template <Activation f, int R, bool keep_all, class T>
struct ForwardWork {
  static constexpr int direction = 1, least_blocks = sizeof(T) > 4 ? 2 : 4;
  Forward<T> s;
  int64_t begin, end;

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const int couplings = R == any ? s.couplings : R;
    const int64_t last = smaller(end, s.length(lane));
    const UnitWeights<T, R> w(s, lane % s.hidden);
    T h = (begin == 0 ? s.h_0 : s.h_n)[lane];
    T c = (begin == 0 ? s.c_0 : s.c_n)[lane];
    int64_t border = keep_all || s.saved_rows == 0 ? -1 : s.first_border(begin);
    constexpr int depth = depth_of<T, R>;
    static_assert(reset_window % depth == 0);
    auto z = ring_of<depth, 1>([&](int64_t t) { return t < last ? s.z[s.row(t) + lane] : T(0); });
    z.fill(begin);
    const auto step = [&](auto i, int64_t t, bool reset) {
      if (reset) h = c = T(0);
      if (t == border) {
        s.saved[(t / s.interval - 1) * s.lanes() + lane] = c;
        border += s.interval;
      }
      const T z_t = z.take(i, t);
      const int64_t row = s.row(t);
      T p = w.u() * h;
      couple(CompiledActivation<f>{}, p, c, couplings, w, [&](int j, T f_p, T f_c) {
        if constexpr (keep_all) {
          const int64_t width = s.lanes_at(t);
          T* values = s.saved + row * 2 * couplings + 2 * j * width + lane;
          values[0] = f_p;
          values[width] = f_c;
        }
      });
      h = output(s.activation, z_t + p);
      s.out[row + lane] = h;
    };
    for_each_window<1>(s, lane, begin, last, [&](int64_t first, int64_t past_last, uint64_t resets) {
      for_each_step<depth, 1>(first, past_last - first, [&](auto i, int64_t t) { step(i, t, resets >> (t - first) & 1); });
    });
    s.h_n[lane] = h;
    s.c_n[lane] = c;
  }
};

template <Activation f, int R, bool keep_all, class T>
struct BackwardWork {
  static constexpr int direction = -1, least_blocks = sizeof(T) > 4 ? 2 : 4;
  static constexpr int depth = depth_of<T, R>;
  Backward<T> s;
  int64_t begin, end;
  T* totals;   // (1 + 2R, B, H): gradients of the weights, of each lane
  T* scratch;  // (numbers of scratch, B, H) for R == any, or null: then it is shared memory

  // Numbers of scratch that a lane needs: h, f(p) and f(c) of a segment; and the sums that find no place
  // in registers.
  static int64_t scratch_numbers(const Sizes<T>& s) {
    const int64_t row = 1 + 2 * s.couplings;
    return (keep_all ? 0 : s.block() * row) + (R == any ? row : 0);
  }

  IREVRNN_INLINE Column<T> scratch_of(const Thread& thread, int64_t lane) const {
    if constexpr (R == any) {
      if (scratch) return {scratch + lane, s.lanes()};
    }
    return {static_cast<T*>(thread.shared) + thread.index, thread.threads};
  }

  // Segment by segment. All values of f are saved (store), or c where segments begin (recompute): then each is replayed.
  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const int couplings = R == any ? s.couplings : R, rows = 1 + 2 * couplings;
    const int64_t last = smaller(end, s.length(lane));
    const bool from_the_end = end == s.steps;
    const Column<T> total{totals + lane, s.lanes()}, values = scratch_of(thread, lane);
    const UnitWeights<T, R> w(s, lane % s.hidden);
    LaneSums<T, R> sums(couplings, total, {&values[keep_all ? 0 : s.block() * rows], values.stride}, from_the_end);
    T carry = from_the_end ? (s.grad_h_n ? s.grad_h_n[lane] : T(0)) : s.grad_h_0[lane];
    T d_c = from_the_end ? (s.grad_c_n ? s.grad_c_n[lane] : T(0)) : s.grad_c_0[lane];

    const auto output_before = [&](int64_t t) { return t == 0 ? s.h_0[lane] : s.out[s.row(t - 1) + lane]; };
    int64_t segment_end = last, segment = (last - 1) / s.block() * s.block();
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
      c = from == 0 ? s.c_0[lane] : s.saved[(from / s.interval - 1) * s.lanes() + lane];
    };
    if constexpr (!keep_all) expect_replay(segment);
    bool under_way = false;  // the loads of this segment
    while (segment_end > begin) {
      const uint64_t resets = lane_resets(s, lane, segment, segment_end);
      const int64_t count = segment_end - segment, earlier = segment - s.block();
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

}  // namespace irevrnn
