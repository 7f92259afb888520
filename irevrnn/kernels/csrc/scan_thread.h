// The scan of one lane, forward and backward: the work of a thread, on a device or on the CPU (grid.h).
// Compare scan_tile.h, which gives the same bits but for the order in which the gradients of the
// weights are summed.
//
// A thread goes through steps [begin, end), where begin is the first of a segment: all of them on a device.
// States enter a later range through h_n and c_n, their gradients an earlier one through grad_h_0 and grad_c_0.
//
// Rows of neighbouring lanes lie side by side, so the threads of a warp read and write whole cache lines.
// The loads of the next `depth` steps are under way, into registers, while a step is computed.
#pragma once

#include "cell.h"
#include "grid.h"
#include "lane.h"
#include "resets.h"

namespace irevrnn {

// A step without couplings takes little time; two steps with many couplings hide the latency of a load. A CPU
// prefetches by itself: there it is the smallest depth that runs the same code.
template <class T, int R>
#if defined(__CUDACC__)
constexpr int depth_of = R == any || R > 2 ? 2 : R == 2 || sizeof(T) > 4 ? 4 : 8;
#else
constexpr int depth_of = 2;
#endif

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

// The same for steps [begin, end) of a lane, from either end, with fn(i, t, whether it is reset before step t).
template <int depth, int64_t step, class T, class Fn>
IREVRNN_INLINE void for_each_step_of(const Sizes<T>& s, int64_t lane, int64_t begin, int64_t end, const Fn& fn) {
  static_assert(reset_window % depth == 0);
  for_each_window<step>(s, lane, begin, end, [&](int64_t first, int64_t past_last, uint64_t resets) {
    for_each_step<depth, step>(step > 0 ? first : past_last - 1, past_last - first, [&](auto i, int64_t t) {
      fn(i, t, resets >> (t - first) & 1);
    });
  });
}

// Numbers of coming steps, on their way.
template <class V, int depth>
struct Ring {
  V next[depth];

  template <int64_t step, class Load>
  IREVRNN_INLINE void fill(int64_t first, int64_t count, const Load& load) {
    each<depth>([&](auto i) { next[i.value] = i.value < count ? load(first + step * i.value) : V{}; });
  }
  // The number of this step; that of `depth` steps on sets out if it is one of the `left`.
  template <int64_t step, int i, class Load>
  IREVRNN_INLINE V take(int64_t t, int64_t left, const Load& load) {
    const V value = next[i];
    if (left > depth) next[i] = load(t + step * depth);
    return value;
  }
};

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
    const auto load = [&](int64_t t) { return s.z[s.row(t) + lane]; };
    constexpr int depth = depth_of<T, R>;
    Ring<T, depth> z;
    z.template fill<1>(begin, last - begin, load);
    for_each_step_of<depth, 1>(s, lane, begin, last, [&](auto i, int64_t t, bool reset) {
      if (reset) h = c = T(0);
      if (t == border) {
        s.saved[(t / s.interval - 1) * s.lanes() + lane] = c;
        border += s.interval;
      }
      const T z_t = z.template take<1, i.value>(t, last - t, load);
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

  struct Lane {
    int64_t lane, last;
    UnitWeights<T, R> w;
    LaneSums<T, R> sums;
    T carry, d_c;
  };

  using Index = std::conditional_t<R == any, int64_t, int>;
  using Scratch = Column<T, Index>;
  IREVRNN_INLINE Scratch scratch_of(const Thread& thread, int64_t lane) const {
    if constexpr (R == any) {
      if (scratch) return {scratch + lane, s.lanes()};
    }
    return {static_cast<T*>(thread.shared) + thread.index, thread.threads};
  }

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t lane = thread.number();
    if (lane >= s.lanes()) return;
    const bool from_the_end = end == s.steps;
    const Column<T, int64_t> total{totals + lane, s.lanes()};
    const Scratch column = scratch_of(thread, lane);
    const Index before_sums = keep_all ? 0 : static_cast<Index>(s.block() * (1 + 2 * couplings()));
    const Column<T, int64_t> sums{column.first + before_sums * column.stride, column.stride};
    Lane x{lane,
           smaller(end, s.length(lane)),
           UnitWeights<T, R>(s, lane % s.hidden),
           LaneSums<T, R>(couplings(), total, sums, from_the_end),
           from_the_end ? (s.grad_h_n ? s.grad_h_n[lane] : T(0)) : s.grad_h_0[lane],
           from_the_end ? (s.grad_c_n ? s.grad_c_n[lane] : T(0)) : s.grad_c_0[lane]};
    if (begin < x.last) {
      if constexpr (keep_all) {
        from_values(x);
      } else {
        from_states(x, column);
      }
    }
    s.grad_h_0[lane] = carried(x.carry);
    s.grad_c_0[lane] = carried(x.d_c);
    x.sums.store(total);
  }

  // Never read from memory where the compiler knows it.
  IREVRNN_INLINE int couplings() const {
    if constexpr (R == any) return s.couplings;
    return R;
  }
  IREVRNN_INLINE T load_grad(const Lane& x, int64_t t) const {
    return s.grad_out ? s.grad_out[s.row(t) + x.lane] : T(0);
  }
  IREVRNN_INLINE T output_of(const Lane& x, int64_t t) const { return s.out[s.row(t) + x.lane]; }
  IREVRNN_INLINE T output_before(const Lane& x, int64_t t) const {
    return t == 0 ? s.h_0[x.lane] : output_of(x, t - 1);
  }
  // c before a segment.
  IREVRNN_INLINE T saved_c(const Lane& x, int64_t segment) const {
    return segment == 0 ? s.c_0[x.lane] : s.saved[(segment / s.interval - 1) * s.lanes() + x.lane];
  }

  template <class Values>
  IREVRNN_INLINE void step_back(Lane& x, int64_t t, bool reset, T grad, T h, T h_before,
                                const Values& values) const {
    T d = s.grad_out ? x.carry + grad : x.carry;
    d = d * output_slope(s.activation, h);
    s.grad_z[s.row(t) + x.lane] = d;
    couple_backward(CompiledActivation<f>{}, d, x.d_c, couplings(), x.w, values, x.sums);
    x.sums.add_u(d, reset ? T(0) : h_before);
    x.carry = reset ? T(0) : d * x.w.u();
    if (reset) x.d_c = T(0);
  }

  // All values are saved (store).
  IREVRNN_INLINE void from_values(Lane& x) const {
    using Values = Loaded<T, R == any ? any : 2 * R>;
    const auto load_grad_of = [&](int64_t t) { return load_grad(x, t); };
    const auto load_before = [&](int64_t t) { return output_before(x, t); };
    const auto load_values = [&](int64_t t) {
      const T* first = s.saved + s.row(t) * 2 * couplings() + x.lane;
      return Values({first, s.lanes_at(t)});
    };
    Ring<T, depth> grads;
    Ring<T, depth> befores;
    Ring<Values, depth> all;
    const int64_t count = x.last - begin;
    grads.template fill<-1>(x.last - 1, count, load_grad_of);
    befores.template fill<-1>(x.last - 1, count, load_before);
    all.template fill<-1>(x.last - 1, count, load_values);
    T h = output_of(x, x.last - 1);
    int64_t segment = (x.last - 1) / s.block() * s.block();
    for_each_step_of<depth, -1>(s, x.lane, begin, x.last, [&](auto i, int64_t t, bool reset) {
      const int64_t left = t - begin + 1;
      const T grad = grads.template take<-1, i.value>(t, left, load_grad_of);
      const T before = befores.template take<-1, i.value>(t, left, load_before);
      const Values values = all.template take<-1, i.value>(t, left, load_values);
      step_back(x, t, reset, grad, h, before, values);
      h = before;
      if (t == segment) {
        x.sums.end_segment();
        segment -= s.block();
      }
    });
  }

  // c is saved where segments begin (recompute).
  IREVRNN_INLINE void from_states(Lane& x, const Scratch& values) const {
    const int rows = 1 + 2 * couplings();
    const auto load_grad_of = [&](int64_t t) { return load_grad(x, t); };
    const auto load_before = [&](int64_t t) { return output_before(x, t); };
    Ring<T, depth> grads;
    Ring<T, depth> befores;
    int64_t segment_end = x.last, segment = (x.last - 1) / s.interval * s.interval;
    befores.template fill<1>(segment, segment_end - segment, load_before);
    T c = saved_c(x, segment), next_c = T(0), next_h = output_of(x, x.last - 1);
    while (segment_end > begin) {
      const uint64_t resets = lane_resets(s, x.lane, segment, segment_end);
      grads.template fill<-1>(segment_end - 1, segment_end - segment, load_grad_of);
      for_each_step<depth, 1>(segment, segment_end - segment, [&](auto i, int64_t t) {
        T h = befores.template take<1, i.value>(t, segment_end - t, load_before);
        const Index row = static_cast<Index>(t - segment) * rows;
        values[row] = h;  // of the step before, even where it is reset: its slope follows from it
        if (resets >> (t - segment) & 1) h = c = T(0);
        T p = x.w.u() * h;
        couple(CompiledActivation<f>{}, p, c, couplings(), x.w, [&](int j, T f_p, T f_c) {
          values[row + 1 + 2 * j] = f_p;
          values[row + 2 + 2 * j] = f_c;
        });
      });
      // The next segment, whose loads are under way during this one's backward pass.
      const int64_t earlier = segment - s.interval;
      if (earlier >= begin) {
        befores.template fill<1>(earlier, s.interval, load_before);
        next_c = saved_c(x, earlier);
      }
      for_each_step<depth, -1>(segment_end - 1, segment_end - segment, [&](auto i, int64_t t) {
        const T grad = grads.template take<-1, i.value>(t, t - segment + 1, load_grad_of);
        const Index row = static_cast<Index>(t - segment) * rows;
        const T before = values[row];
        const bool reset = resets >> (t - segment) & 1;
        step_back(x, t, reset, grad, next_h, before, Scratch{&values[row + 1], values.stride});
        next_h = before;
      });
      x.sums.end_segment();
      c = next_c;
      segment_end = segment;
      segment = earlier;
    }
  }
};

}  // namespace irevrnn
