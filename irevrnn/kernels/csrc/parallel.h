// Loops on several threads, and arrays for what they compute. A thread takes denormal numbers for zero as long as it works:
// the gradients of what is forgotten become denormal, and some processors take a hundred times as long for such a number.
#pragma once

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cstdint>
#include <new>
#include <vector>

namespace irevrnn {

// Takes denormal numbers for zero, on the thread that makes it, until it is destroyed.
class FlushDenormals {
 public:
  FlushDenormals() : before_(flushes()) { at::globalContext().setFlushDenormal(true); }
  ~FlushDenormals() { at::globalContext().setFlushDenormal(before_); }

 private:
  static bool flushes() {
    const volatile float denormal = 1e-40f;
    return denormal * 1.0f == 0.0f;
  }
  bool before_;
};

template <class Fn>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Fn& fn) {
  at::parallel_for(begin, end, grain, [&](int64_t first, int64_t past_last) {
    const FlushDenormals flush;
    fn(first, past_last);
  });
}

// Arrays that begin at a cache line: a vector register that straddles two lines is loaded twice, and its store delays the
// load that follows.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}

  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), line)); }
  void deallocate(T* block, size_t) { ::operator delete(block, line); }
  template <class U>
  bool operator==(const LineAllocator<U>&) const { return true; }
};

template <class T>
using Array = std::vector<T, LineAllocator<T>>;

}  // namespace irevrnn
