// The recurrence: what a scan reads and writes, and its entry points on the CPU.
//
// A lane is one unit of one sequence, the work of one CUDA thread: lane = batch * H + unit. Tensors are
// contiguous (T, B, H), so step t of all lanes is a row of B * H numbers. Sequences of different length
// come packed, the longest first, as in PyTorch's PackedSequence: rows of later steps are shorter.
#pragma once

#include <cstdint>
#include <limits>

#include "activations.h"

namespace irevrnn {

// Of Sizes::interval; the usual one is SEGMENT in irevrnn/kernels/ops.py. A block of so many steps is worked through for all
// lanes before the next: rows are read in the order of memory.
constexpr int64_t nothing_saved = -1, everything_saved = 0, usual_interval = 16;

// Numbers of all lanes: one row, or a row for each step.
template <class T>
struct Rows {
  T* first = nullptr;  // null where there are none
  bool of_steps = false;
  IREVRNN_INLINE explicit operator bool() const { return first != nullptr; }
  // Those of the step whose other numbers lie at `row`.
  IREVRNN_INLINE T* at(int64_t row) const { return of_steps ? first + row : first; }
};

template <class T>
struct Sizes {
  int64_t steps, batch, hidden;
  int couplings;
  int64_t interval;  // everything_saved: every f(p) and f(c); usual_interval K: c before steps K, 2K, ...; or nothing_saved
  Activation activation, coupling_activation;
  const T *h_0, *c_0;    // (B, H)
  const T *u = nullptr, *a = nullptr, *b = nullptr;  // (H,), (R, H), (R, H)
  // Of a selective oscillator, which has them in place of u, a and b; the decay may be missing.
  Rows<const T> angle, decay;

  // Sequences in the rows before each row and, at the end, in all of them; null unless packed.
  const int64_t* row_starts = nullptr;
  // (T, B), packed like the rest: not 0 where a sequence's h and c are set to 0 before the step; or null.
  const uint8_t* resets = nullptr;

  IREVRNN_INLINE int64_t lanes() const { return batch * hidden; }
  IREVRNN_INLINE int64_t row(int64_t t) const { return row_starts ? row_starts[t] * hidden : t * lanes(); }
  IREVRNN_INLINE int64_t lanes_at(int64_t t) const {
    return row_starts ? (row_starts[t + 1] - row_starts[t]) * hidden : lanes();
  }
  // Those of all sequences at step t.
  IREVRNN_INLINE const uint8_t* resets_at(int64_t t) const {
    return resets + (row_starts ? row_starts[t] : t * batch);
  }
  // Steps of a lane: those of its sequence.
  IREVRNN_INLINE int64_t length(int64_t lane) const {
    if (!row_starts) return steps;
    int64_t has = 0, has_not = steps + 1;  // steps, and steps + 1
    while (has_not - has > 1) {
      const int64_t middle = (has + has_not) / 2;
      (lane < lanes_at(middle - 1) ? has : has_not) = middle;
    }
    return has;
  }
  // The row of c before step t, if `saved` has it; null elsewhere.
  template <class P>
  IREVRNN_INLINE P* border(P* saved, int64_t t) const {
    const bool is_saved = saved && interval == usual_interval && t > 0 && t % usual_interval == 0;
    return is_saved ? saved + (t / usual_interval - 1) * lanes() : nullptr;
  }
};

// Calls fn(constant<whether every value of f is saved>).
template <class T, class Fn>
IREVRNN_INLINE auto with_keeping(const Sizes<T>& s, const Fn& fn) {
  return s.interval == everything_saved ? fn(constant<true>{}) : fn(constant<false>{});
}

// (1 + 2R) rows of numbers of each unit: u, a_1, ..., a_R, b_1, ..., b_R.
template <class T>
struct WeightRows {
  T *u, *a, *b;
  int64_t size;  // of a row
  int couplings;
  IREVRNN_INLINE T* row(int64_t i) const {
    return i == 0 ? u : i <= couplings ? a + (i - 1) * size : b + (i - 1 - couplings) * size;
  }
};

template <class T>
struct Forward : Sizes<T> {
  const T* z;    // (T, B, H)
  T* out;        // (T, B, H)
  T *h_n, *c_n;  // (B, H)
  T* saved;      // (T, 2R, B, H), packed like the rest, or (ceil(T / K) - 1, B, H)
};

template <class T>
struct Backward : Sizes<T> {
  const T* grad_out;  // (T, B, H); null where there is none, as are the next two
  const T *grad_h_n, *grad_c_n;
  const T *out, *saved;
  T* grad_z;                    // (T, B, H)
  T *grad_h_0, *grad_c_0;       // (B, H)
  T *grad_u = nullptr, *grad_a = nullptr, *grad_b = nullptr;  // (H,), (R, H), (R, H)
  Rows<T> grad_angle, grad_decay;  // 0 on entry where all steps have one

  // c before step t, with which a segment begins.
  IREVRNN_INLINE const T* c_before(int64_t t) const { return t == 0 ? this->c_0 : this->border(saved, t); }
};

// A gradient of a state as it goes from a block of steps to the one before it: 0 where it is so small that PyTorch's
// matrix products, which flush no denormal numbers (parallel.h), would soon make some of it.
template <class T>
IREVRNN_INLINE T carried(T gradient) {
  constexpr T smallest = std::numeric_limits<T>::min() * T(1 << 30);
  return absolute(gradient) < smallest ? T(0) : gradient;
}

void scan_vector(const Forward<float>& s);
void scan_vector(const Backward<float>& s);

// By the functions of a device's threads, on the CPU (scan_threads.cpp): float or double, any shape; of fixed_scan.h, too.
template <class Problem>
void scan_threads(const Problem& s);

}  // namespace irevrnn
