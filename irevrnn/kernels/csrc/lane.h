// What one thread keeps of its lane: weights, the sums of their gradients, and a column of scratch.
#pragma once

#include <type_traits>

#include "scan.h"

namespace irevrnn {

// R as a template argument where it is known only at run time. From 0 to `unrolled` it is known to the
// compiler, so that a lane's weights and sums stay in registers.
constexpr int any = -1, unrolled = 4;

// Every stride-th number from `first` on: neighbouring threads have neighbouring columns.
template <class T>
struct Column {
  T* first;
  int64_t stride;
  IREVRNN_INLINE T& operator[](int64_t i) const { return first[i * stride]; }
};

// The tile (scan_tile.h) of a thread.
template <class T>
struct LaneTile {
  using V = T;
  IREVRNN_INLINE static T load(const T* from) { return *from; }
  IREVRNN_INLINE static T load_whole(const T* from) { return *from; }
  IREVRNN_INLINE static void store(T* to, T x) { *to = x; }
  IREVRNN_INLINE static void store_whole(T* to, T x) { *to = x; }
};

// Numbers of a column: in registers where the compiler knows how many, or where they lie in memory.
template <class T, int count>
struct Registers {
  T x[count > 0 ? count : 1];  // C++ has no empty arrays
  Registers() = default;
  IREVRNN_INLINE explicit Registers(const Column<const T>& from) {
    each<count>([&](auto i) { x[i.value] = from[i.value]; });
  }
  IREVRNN_INLINE T& operator[](int i) { return x[i]; }
  IREVRNN_INLINE const T& operator[](int i) const { return x[i]; }
};
template <class T, int count>
using Loaded = std::conditional_t<count == any, Column<const T>, Registers<T, count>>;

template <class T, int R>
struct UnitWeights {
  T u_;
  Loaded<T, R> a_, b_;
  IREVRNN_INLINE UnitWeights(const Sizes<T>& s, int64_t unit)
      : u_(s.u[unit]), a_({s.a + unit, s.hidden}), b_({s.b + unit, s.hidden}) {}
  IREVRNN_INLINE T u() const { return u_; }
  IREVRNN_INLINE T a(int i) const { return a_[i]; }
  IREVRNN_INLINE T b(int i) const { return b_[i]; }
};

// Gradients of the weights: u, then a_1..a_R, then b_1..b_R. Each segment is summed on its own first, which
// keeps rounding errors from growing with T. In registers, or for any R in memory.
template <class T, int R>
struct LaneSums {
  using Numbers = std::conditional_t<R == any, Column<T>, Registers<T, 1 + 2 * R>>;
  int couplings;
  Numbers part, total;

  // Goes on from the totals in memory, or begins at 0 if `first`.
  IREVRNN_INLINE LaneSums(int couplings_, const Column<T>& totals, const Column<T>& scratch, bool first)
      : couplings(couplings_) {
    if constexpr (R == any) part = scratch, total = totals;
    for_each([&](int i) {
      part[i] = T(0);
      total[i] = first ? T(0) : totals[i];
    });
  }
  IREVRNN_INLINE void end_segment() {
    for_each([&](int i) {
      total[i] += part[i];
      part[i] = T(0);
    });
  }
  IREVRNN_INLINE void store(const Column<T>& totals) const {
    if constexpr (R != any) for_each([&](int i) { totals[i] = total[i]; });
  }
  IREVRNN_INLINE void add_u(T x, T y) { add(0, x, y); }
  template <class Part>
  IREVRNN_INLINE void add_a(int i, Part, T x, T y) { add(1 + i, x, y); }
  template <class Part>
  IREVRNN_INLINE void add_b(int i, Part, T x, T y) { add(1 + (R == any ? couplings : R) + i, x, y); }

 private:
  template <class Fn>
  IREVRNN_INLINE void for_each(const Fn& fn) const {
    const int count = 1 + 2 * (R == any ? couplings : R);
    IREVRNN_UNROLL
    for (int i = 0; i < count; ++i) fn(i);
  }
  IREVRNN_INLINE void add(int row, T x, T y) { part[row] = fma(x, y, part[row]); }
};

}  // namespace irevrnn
