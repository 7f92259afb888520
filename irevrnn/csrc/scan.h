// The recurrence on the CPU: what a scan reads and writes, and its entry points.
//
// A lane is one unit of one sequence, the work of one CUDA thread: lane = batch * H + unit. Tensors are
// contiguous (T, B, H), so step t of all lanes is a row of B * H numbers. Sequences of different length
// come packed, the longest first, as in PyTorch's PackedSequence: rows of later steps are shorter.
#pragma once

#include <cstdint>

#include "activations.h"

namespace irevrnn {

constexpr int64_t nothing_held = -1, longest_interval = 64;  // of Sizes::interval

template <class T>
struct Sizes {
  int64_t steps, batch, hidden;
  int couplings;
  // 0: every f(p) and f(c) is held; K: c is held before steps K, 2K, ...; or nothing_held.
  int64_t interval;
  int64_t held_rows;  // how many rows of c are held, 0 if no backward pass follows
  Activation activation, coupling_activation;
  const T *h_0, *c_0;    // (B, H)
  const T *u, *a, *b;    // (H,), (R, H), (R, H)

  // Where each row begins and, at the end, where the last one ends; null unless packed.
  const int64_t* row_starts = nullptr;

  IREVRNN_INLINE int64_t lanes() const { return batch * hidden; }
  IREVRNN_INLINE int64_t row(int64_t t) const { return row_starts ? row_starts[t] : t * lanes(); }
  IREVRNN_INLINE int64_t lanes_at(int64_t t) const {
    return row_starts ? row_starts[t + 1] - row_starts[t] : lanes();
  }
  // Steps that are worked through for all lanes before the next: rows are read in the order of memory.
  IREVRNN_INLINE int64_t block() const { return interval > 0 ? interval : 16; }
};

template <class T>
struct Forward : Sizes<T> {
  const T* z;          // (T, B, H)
  T *out, *h_n, *c_n;  // (T, B, H), (B, H), (B, H)
  T* held;             // (T, 2R, B, H), packed like the rest, or (ceil(T / K) - 1, B, H)
};

template <class T>
struct Backward : Sizes<T> {
  const T *grad_out, *grad_h_n, *grad_c_n;  // null where there is none
  const T *out, *held;
  T *grad_z, *grad_h_0, *grad_c_0;  // (T, B, H), (B, H), (B, H)
  T *grad_u, *grad_a, *grad_b;      // (H,), (R, H), (R, H)
};

void scan_vector(const Forward<float>& s);
void scan_vector(const Backward<float>& s);
template <class T>
void scan_scalar(const Forward<T>& s);
template <class T>
void scan_scalar(const Backward<T>& s);

}  // namespace irevrnn
