// The fixed-point kernels and the grids they run on, the same on a device and on the CPU.
//
// Instances: R from 0 to 4 and at run time for float, at run time alone for double. f is known
// to the compiler where it is tanh, the default, and chosen by a switch elsewhere: all threads take the same
// way through it, and this leaves 14 kernels a direction where there would be 35.
#pragma once

#include "fixed_thread.h"
#include "scan_grid.h"

namespace irevrnn {

// Calls fn(constant<R>, f).
template <class Instances, class T, class Fn>
auto with_fixed_instance(const Sizes<T>& s, const Fn& fn) {
  const auto with_f = [&](auto couplings) {
    if (s.coupling_activation == Activation::tanh) {
      return fn(couplings, CompiledActivation<Activation::tanh>{});
    }
    return fn(couplings, ChosenActivation{s.coupling_activation});
  };
  if constexpr (Instances::knows_couplings && std::is_same_v<T, float>) {
    return with_couplings(s.couplings, with_f);
  } else {
    return with_f(constant<any>{});
  }
}

// Runner: as in scan_grid.h.
template <class T, class Runner>
auto fixed_scan_on_grid(const LaneForward<T>& s, const Grid& grid, const Runner& run) {
  return with_fixed_instance<Runner>(s, [&](auto couplings, auto f) {
    return run(FixedForwardWork<couplings.value, decltype(f), T>{s, f, 0, s.steps}, grid);
  });
}

template <class T, class Runner>
auto fixed_scan_on_grid(const FixedInverse<T>& s, const Grid& grid, const Runner& run) {
  return with_fixed_instance<Runner>(s, [&](auto couplings, auto f) {
    return run(FixedInverseWork<couplings.value, decltype(f), T>{s, f, 0, s.steps}, grid);
  });
}

}  // namespace irevrnn
