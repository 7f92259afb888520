// The recurrence in fixed point: what it reads and writes, and its entry points on the CPU.
#pragma once

#include <vector>

#include "fixed_point.h"
#include "scan.h"

namespace irevrnn {

template <class T>
struct FixedPass : Sizes<T> {
  int64_t first_step;         // of the pass in the whole sequence
  const T* z;                 // (T, B, H)
  int32_t *h, *c;             // (B, H): states at one end of the pass on entry, at the other on return
  int32_t *bits_h, *bits_c;   // (B, H): of their scales, likewise
  int64_t *tails, *places;    // (streams): of the bit stacks (bit_stack.h) and of their last rescalings (rescaling.h), likewise
  T* out;               // (T, B, H)
  T* saved;             // like Forward::saved, for the gradient; or null
};

// One bit stack for each chunk of lanes.
template <class T>
struct FixedForward : FixedPass<T> {
  bool record;                               // keep the words, for the inverse
  std::vector<std::vector<uint32_t>> words;  // one stack a chunk
  int64_t bad_step = -1;                     // the first step out of range
};

// One bit stack for each lane.
template <class T>
struct LaneForward : FixedPass<T> {
  uint32_t* words;    // (rows, B, H), each lane's in its column; or null: they are not kept
  int64_t rows, reset_rows;  // in all, and those that the resets of a lane fill at most
  int64_t* counts;    // (B, H): their number, or -1 where the lane stopped
  int64_t* bad_step;  // the first step out of range, -1 on entry
  int64_t* crowded;   // set to 1 where a lane stopped for lack of rows
};

// The smaller of two steps, from any thread. -1, which is none, is the largest without a sign.
IREVRNN_INLINE void note_step(int64_t* earliest, int64_t t) {
  auto* at = reinterpret_cast<unsigned long long*>(earliest);
  const auto step = static_cast<unsigned long long>(t);
#if defined(__CUDA_ARCH__)
  atomicMin(at, step);
#elif !defined(__CUDACC__)
  // std::atomic_ref is missing from clang's library before version 19.
  unsigned long long seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (step < seen && !__atomic_compare_exchange_n(at, &seen, step, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
#endif
}

// Where the words of LaneForward go, without the room that was not needed.
struct LaneWords {
  int64_t lanes;
  const uint32_t* columns;
  const int64_t *starts, *counts;  // (B, H)
  uint32_t* words;
};

// Every lane or every chunk of lanes has a stack, as it had in the forward pass.
template <class T>
struct FixedInverse : FixedPass<T> {
  const uint32_t* words;
  int64_t words_size, streams;
  const int64_t* starts;   // (streams): where each stack's words begin
  int64_t* counts;         // (streams): words left on each stack, updated

  // Whether the words of a stack lie within those that were given.
  IREVRNN_INLINE bool is_sound(int64_t stream) const {
    const int64_t start = starts[stream], count = counts[stream];
    return start >= 0 && count >= 0 && start <= words_size && count <= words_size - start;
  }
};

// Bit stacks of that many lanes in the vectorised kernel.
int64_t vector_streams(int64_t lanes);
void fixed_scan_vector(FixedForward<float>& s);
void fixed_scan_vector(FixedInverse<float>& s);

void scan_threads(const LaneWords& s);

}  // namespace irevrnn
