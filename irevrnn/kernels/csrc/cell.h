// The cell, written once for host and device: V is float, double, or a pack of vectors of floats.
// Compare irevrnn/kernels/reference.py line by line.
#pragma once

#include "activations.h"

namespace irevrnn {

// f, the couplings' activation, and its slope, known to the compiler ...
template <Activation kind>
struct CompiledActivation {
  static constexpr bool is_homogeneous = homogeneous(kind);
  template <class V>
  IREVRNN_INLINE V operator()(const V& x) const { return activate_coupling<kind>(x); }
  template <class V>
  IREVRNN_INLINE V slope(const V& y) const { return slope_from_output<kind>(y); }
};

// ... or chosen at run time.
struct ChosenActivation {
  static constexpr bool is_homogeneous = false;  // that the compiler knows of
  Activation kind;
  template <class V>
  IREVRNN_INLINE V operator()(const V& x) const {
    return with_activation(kind, [&](auto f) { return activate_coupling<f.value>(x); });
  }
  template <class V>
  IREVRNN_INLINE V slope(const V& y) const {
    return with_activation(kind, [&](auto f) { return slope_from_output<f.value>(y); });
  }
};

// The R couplings (paper, eq:coupling). a(i) and b(i) are their weights; keep(i, f_p, f_c) receives
// f(p_{i-1}) and f(c_i), all that the backward pass needs of coupling i.
template <class F, class V, class Weights, class Keep>
IREVRNN_INLINE void couple(const F& f, V& p, V& c, int couplings, const Weights& w, const Keep& keep) {
  IREVRNN_UNROLL
  for (int i = 0; i < couplings; ++i) {
    const V f_p = f(p);
    c = fma(w.a(i), f_p, c);
    const V f_c = f(c);
    p = fma(w.b(i), f_c, p);
    keep(i, f_p, f_c);
  }
}

// The couplings' part of the gradient (paper, eq:gradient): d and d_c are the gradients of p_R and c_R
// on entry, of p_0 and c_0 on return. add_a(i, part, x, y) and add_b(i, part, x, y) add x * y to the gradient of a weight;
// values has f(p_{i-1}) and f(c_i) of all couplings. The parts of a pack go through a coupling one after the other, as all
// at once would find no room in the registers.
template <class F, class V, class Weights, class Values, class Sums>
IREVRNN_INLINE void couple_backward(const F& f, V& d, V& d_c, int couplings, const Weights& w,
                                    const Values& values, Sums&& sums) {
  IREVRNN_UNROLL
  for (int i = couplings - 1; i >= 0; --i) {
    each<parts_of<V>>([&](auto part) {
      auto &d_k = part_of<part.value>(d), &d_c_k = part_of<part.value>(d_c);
      const V a = w.a(i), b = w.b(i), f_p = values[2 * i], f_c = values[2 * i + 1];
      sums.add_b(i, part, d_k, part_of<part.value>(f_c));
      d_c_k = fma(d_k * part_of<part.value>(b), f.slope(part_of<part.value>(f_c)), d_c_k);
      sums.add_a(i, part, d_c_k, part_of<part.value>(f_p));
      d_k = fma(d_c_k * part_of<part.value>(a), f.slope(part_of<part.value>(f_p)), d_k);
    });
  }
}

// g, chosen at run time: applied once a step, its switch costs nothing beside the 2R values of f.
template <class V>
IREVRNN_INLINE V output(Activation g, const V& x) {
  return with_activation(g, [&](auto kind) { return activate<kind.value>(x); });
}

template <class V>
IREVRNN_INLINE V output_slope(Activation g, const V& y) {
  return with_activation(g, [&](auto kind) { return slope_from_output<kind.value>(y); });
}

}  // namespace irevrnn
