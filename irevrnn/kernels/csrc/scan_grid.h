// The kernels of a scan and the grids they run on, the same on a device and on the CPU.
//
// AllInstances: every f, R from 0 to 4 and at run time, saved values or recomputed ones are 104 kernels a type, for which nvcc
// takes some 20 s. g is chosen at run time, as its switch comes once a step (cell.h).
#pragma once

#include "fixed_thread.h"
#include "scan_thread.h"

namespace irevrnn {

// Calls fn(constant<R>).
template <int R = 0, class Fn>
auto with_couplings(int couplings, const Fn& fn) {
  if constexpr (R > unrolled) return fn(constant<any>{});
  else return couplings == R ? fn(constant<R>{}) : with_couplings<R + 1>(couplings, fn);
}

// Which kernels there are: for each R up to `unrolled` and one for any, or this one alone, for a short build on the CPU.
struct AllInstances { static constexpr bool knows_couplings = true; };
struct FewInstances { static constexpr bool knows_couplings = false; };

// Calls fn(constant<f>, constant<R>, constant<keep_all>).
template <class Instances, class T, class Fn>
auto with_instance(const Sizes<T>& s, int couplings, const Fn& fn) {
  const auto with_rest = [&](auto couplings) {
    const auto with_f = [&](auto f) {
      return with_keeping(s, [&](auto keep_all) { return fn(f, couplings, keep_all); });
    };
    if constexpr (couplings.value == 0) {
      return with_f(constant<Activation::identity>{});  // there is nothing to apply it to
    } else {
      return with_activation(s.coupling_activation, with_f);
    }
  };
  if constexpr (Instances::knows_couplings) {
    return with_couplings(couplings, with_rest);
  } else {
    return with_rest(constant<any>{});
  }
}

// Sums up to `group` sequences, in order: rows (B, H) become (ceil(B / group), H). Repeated until one is
// left, this sums over the batch without atomics, and with rounding that grows as log B.
template <class T>
struct SumWork {
  static constexpr int64_t group = 32;
  const T* from;  // (rows, batch, H)
  WeightRows<T> to;
  int64_t batch, hidden;

  static int64_t groups(int64_t batch) { return (batch + group - 1) / group; }
  int64_t threads() const { return (1 + 2 * to.couplings) * groups(batch) * hidden; }

  IREVRNN_INLINE void operator()(const Thread& thread) const {
    const int64_t groups = (batch + group - 1) / group, number = thread.number();
    const int64_t row = number / (groups * hidden), place = number % (groups * hidden);
    if (row >= 1 + 2 * to.couplings) return;
    const int64_t first = place / hidden * group, past_last = smaller(batch, first + group);
    T sum = T(0);
    for (int64_t i = first; i < past_last; ++i) {
      sum += from[(row * batch + i) * hidden + place % hidden];
    }
    to.row(row)[place] = sum;
  }
};

// Bytes of scratch of each lane in a backward pass, which is memory that the threads of a block share.
template <class Instances, class T>
int64_t scratch_bytes(const Backward<T>& s) {
  if (s.angle) return 0;
  return with_instance<Instances>(s, s.couplings, [&](auto f, auto couplings, auto keep_all) {
    using Work = BackwardWork<f.value, couplings.value, keep_all.value, T>;
    return Work::scratch_numbers(s) * static_cast<int64_t>(sizeof(T));
  });
}

// Numbers in the workspace of a backward pass: the sums of each lane, and of each group of sequences.
template <class T>
int64_t workspace_numbers(const Backward<T>& s) {
  return s.angle ? 0 : (1 + 2 * s.couplings) * (s.batch + SumWork<T>::groups(s.batch)) * s.hidden;
}

// Runner: run(work, grid), which returns what a launch returns, with the members of AllInstances or FewInstances.
template <class T, class Runner>
auto scan_on_grid(const Forward<T>& s, const Grid& grid, const Runner& run) {
  if (s.angle) return run(TurnForwardWork<T>{s, 0, s.steps}, grid);
  return with_instance<Runner>(s, s.couplings, [&](auto f, auto couplings, auto keep_all) {
    return run(ForwardWork<f.value, couplings.value, keep_all.value, T>{s, 0, s.steps}, grid);
  });
}

template <class T, class Runner>
auto scan_on_grid(const Backward<T>& s, const Grid& grid, T* workspace, const Runner& run) {
  if (s.angle) return run(TurnBackwardWork<T>{s, 0, s.steps}, grid);
  auto status = with_instance<Runner>(s, s.couplings, [&](auto f, auto couplings, auto keep_all) {
    using Work = BackwardWork<f.value, couplings.value, keep_all.value, T>;
    return run(Work{s, 0, s.steps, workspace}, grid);
  });
  T* from = workspace;
  T* to = workspace + (1 + 2 * s.couplings) * s.lanes();
  for (int64_t batch = s.batch; status == decltype(status){} && batch > 0;) {
    const int64_t groups = SumWork<T>::groups(batch);
    const int64_t size = groups * s.hidden;
    WeightRows<T> rows{to, to + size, to + (1 + s.couplings) * size, size, s.couplings};
    if (groups == 1) rows = {s.grad_u, s.grad_a, s.grad_b, size, s.couplings};
    const SumWork<T> work{from, rows, batch, s.hidden};
    status = run(work, Grid::of(work.threads()));
    if (groups == 1) break;
    std::swap(from, to);
    batch = groups;
  }
  return status;
}

// Calls fn(std::type_identity<cells of a lane>, f). Of double there is R at run time alone, and f is known to the compiler
// where it is tanh, the default: all threads take the same way through a switch, and 14 kernels a direction are less than 35.
template <class Instances, class T, class Fn>
auto with_fixed_instance(const Sizes<T>& s, const Fn& fn) {
  const ChosenActivation chosen{s.coupling_activation};
  if (s.angle) return fn(std::type_identity<LaneTurns<T>>(), chosen);
  const auto with_f = [&](auto couplings) {
    const auto call = [&]<class F>(F f) { return fn(std::type_identity<LaneCouplings<couplings.value, F, T>>(), f); };
    if (s.coupling_activation == Activation::tanh) return call(CompiledActivation<Activation::tanh>());
    return call(chosen);
  };
  if constexpr (Instances::knows_couplings && std::is_same_v<T, float>) {
    return with_couplings(s.couplings, with_f);
  } else {
    return with_f(constant<any>{});
  }
}

template <class T, class Runner>
auto scan_on_grid(const LaneForward<T>& s, const Grid& grid, const Runner& run) {
  return with_fixed_instance<Runner>(s, [&]<class Cells, class F>(std::type_identity<Cells>, const F& f) {
    return run(FixedForwardWork<Cells, F, T>{s, f, 0, s.steps}, grid);
  });
}

template <class T, class Runner>
auto scan_on_grid(const FixedInverse<T>& s, const Grid& grid, const Runner& run) {
  return with_fixed_instance<Runner>(s, [&]<class Cells, class F>(std::type_identity<Cells>, const F& f) {
    return run(FixedInverseWork<Cells, F, T>{s, f, 0, s.steps}, grid);
  });
}

}  // namespace irevrnn
