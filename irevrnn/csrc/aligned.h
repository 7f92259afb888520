// Arrays that begin at a cache line: a vector register that straddles two lines is loaded twice, and its
// store delays the load that follows.
#pragma once

#include <new>
#include <vector>

namespace irevrnn {

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
