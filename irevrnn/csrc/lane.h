// The data that one thread keeps of its lane: weights, the sums of their gradients, and a column of scratch.
#pragma once

#include "scan.h"

namespace irevrnn {

// R as a template argument where it is known only at run time. From 0 to `unrolled` it is known to the
// compiler, so that a lane's weights and sums stay in registers.
constexpr int any = -1, unrolled = 4;

// Room for `count` numbers; C++ has no empty arrays.
constexpr int room(int count) { return count > 0 ? count : 1; }

// Every stride-th number from `first` on: neighbouring threads have neighbouring columns.
template <class T, class Index>
struct Column {
  T* first;
  Index stride;
  IREVRNN_INLINE T& operator[](Index i) const { return first[i * stride]; }
};

template <class T, int R>
struct UnitWeights {
  T u_, a_[room(R)], b_[room(R)];
  IREVRNN_INLINE UnitWeights(const Sizes<T>& s, int64_t unit) : u_(s.u[unit]) {
    each<R>([&](auto i) {
      a_[i.value] = s.a[i.value * s.hidden + unit];
      b_[i.value] = s.b[i.value * s.hidden + unit];
    });
  }
  IREVRNN_INLINE T u() const { return u_; }
  IREVRNN_INLINE T a(int i) const { return a_[i]; }
  IREVRNN_INLINE T b(int i) const { return b_[i]; }
};

template <class T>
struct UnitWeights<T, any> {
  T u_;
  Column<const T, int64_t> a_, b_;
  IREVRNN_INLINE UnitWeights(const Sizes<T>& s, int64_t unit)
      : u_(s.u[unit]), a_{s.a + unit, s.hidden}, b_{s.b + unit, s.hidden} {}
  IREVRNN_INLINE T u() const { return u_; }
  IREVRNN_INLINE T a(int i) const { return a_[i]; }
  IREVRNN_INLINE T b(int i) const { return b_[i]; }
};

// Gradients of the weights: u, then a_1..a_R, then b_1..b_R. Each segment is summed on its own first, which
// keeps rounding errors from growing with T.
template <class T, int R>
struct LaneSums {
  static constexpr int count = 1 + 2 * R;
  T part[count], total[count];

  // Goes on from the totals in memory, or begins at 0 if `first`.
  IREVRNN_INLINE LaneSums(int, const Column<T, int64_t>& totals, const Column<T, int64_t>&, bool first) {
    each<count>([&](auto i) {
      part[i.value] = T(0);
      total[i.value] = first ? T(0) : totals[i.value];
    });
  }
  IREVRNN_INLINE void end_segment() {
    each<count>([&](auto i) {
      total[i.value] += part[i.value];
      part[i.value] = T(0);
    });
  }
  IREVRNN_INLINE void store(const Column<T, int64_t>& totals) const {
    each<count>([&](auto i) { totals[i.value] = total[i.value]; });
  }
  IREVRNN_INLINE void add_u(T x, T y) { part[0] = fma(x, y, part[0]); }
  template <class Part>
  IREVRNN_INLINE void add_a(int i, Part, T x, T y) { part[1 + i] = fma(x, y, part[1 + i]); }
  template <class Part>
  IREVRNN_INLINE void add_b(int i, Part, T x, T y) { part[1 + R + i] = fma(x, y, part[1 + R + i]); }
};

// In memory.
template <class T>
struct LaneSums<T, any> {
  int couplings;
  Column<T, int64_t> part, total;

  IREVRNN_INLINE LaneSums(int couplings, const Column<T, int64_t>& totals, const Column<T, int64_t>& scratch,
                          bool first)
      : couplings(couplings), part(scratch), total(totals) {
    for (int i = 0; i < 1 + 2 * couplings; ++i) {
      part[i] = T(0);
      if (first) total[i] = T(0);
    }
  }
  IREVRNN_INLINE void end_segment() {
    for (int i = 0; i < 1 + 2 * couplings; ++i) {
      total[i] += part[i];
      part[i] = T(0);
    }
  }
  IREVRNN_INLINE void store(const Column<T, int64_t>&) const {}
  IREVRNN_INLINE void add(int row, T x, T y) { part[row] = fma(x, y, part[row]); }
  IREVRNN_INLINE void add_u(T x, T y) { add(0, x, y); }
  template <class Part>
  IREVRNN_INLINE void add_a(int i, Part, T x, T y) { add(1 + i, x, y); }
  template <class Part>
  IREVRNN_INLINE void add_b(int i, Part, T x, T y) { add(1 + couplings + i, x, y); }
};

}  // namespace irevrnn
