// The recurrence in fixed point on the CPU: what it reads and writes, and its entry points.
#pragma once

#include <vector>

#include "scan.h"

namespace irevrnn {

// Fixed-point states, (B, H) each: output, cell state, and the state of the bit stack.
template <class Long>
struct States {
  Long *h, *c, *s;
};

// Sizes<T>::u holds the rounded weights, multiples of 2^-16; interval is 0.
template <class T>
struct FixedForward : Sizes<T> {
  const T* z;                   // (T, B, H)
  States<int64_t> states;       // initial on entry, final on return
  bool record;                  // keep the words, to go back later
  T *out, *values;              // (T, B, H), (T, 2R, B, H): f(p) and f(c), or null
  std::vector<std::vector<uint16_t>> words;  // one stack a chunk of lanes
  int64_t bad_step = -1;        // the first step out of range
};

template <class T>
struct FixedInverse : Sizes<T> {
  const T* z;
  States<int64_t> states;  // final on entry, initial on return
  const uint16_t* words;
  int64_t words_size, streams;
  const int64_t* starts;   // (streams + 1): where each stack's words begin
  int64_t* counts;         // (streams): words left on each stack, updated
  T *out, *values;         // as above
};

void fixed_scan_vector(FixedForward<float>& s);
void fixed_scan_vector(FixedInverse<float>& s);
template <class T>
void fixed_scan_scalar(FixedForward<T>& s);
template <class T>
void fixed_scan_scalar(FixedInverse<T>& s);

}  // namespace irevrnn
