// Loops on several threads, each of which takes denormal numbers for zero as long as it works.
//
// The gradients of what is forgotten become denormal, and some processors take a hundred times as long for such a number.
#pragma once

#include <ATen/Parallel.h>

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace irevrnn {

// Takes denormal numbers for zero, on the thread that makes it, until it is destroyed.
class FlushDenormals {
 public:
  FlushDenormals() : before_(mode()) { set_mode(before_ | flushing); }
  ~FlushDenormals() { set_mode(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__SSE2__)
  using Mode = unsigned;
  static constexpr Mode flushing = 0x8040;  // results, and operands
  static Mode mode() { return _mm_getcsr(); }
  static void set_mode(Mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
  using Mode = uint64_t;
  static constexpr Mode flushing = Mode{1} << 24;
  static Mode mode() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set_mode(Mode mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
  using Mode = int;
  static constexpr Mode flushing = 0;
  static Mode mode() { return 0; }
  static void set_mode(Mode) {}
#endif

  Mode before_;
};

template <class Fn>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Fn& fn) {
  at::parallel_for(begin, end, grain, [&](int64_t first, int64_t past_last) {
    const FlushDenormals flush;
    fn(first, past_last);
  });
}

}  // namespace irevrnn
