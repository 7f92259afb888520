// Fresh tensors for results.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace irevrnn {

// An uninitialised tensor. The first write to memory that the system has just handed out costs more than
// the recurrence's arithmetic when it comes in pages of 4 KiB; large results ask for pages of 2 MiB.
inline at::Tensor fresh(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor result = at::empty(sizes, options);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (!result.is_cpu()) return result;
  constexpr uintptr_t huge_page = 2 << 20;
  const auto begin = reinterpret_cast<uintptr_t>(result.mutable_data_ptr());
  const uintptr_t first = (begin + huge_page - 1) / huge_page * huge_page;
  const uintptr_t last = (begin + result.nbytes()) / huge_page * huge_page;
  if (last > first + huge_page) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return result;
}

}  // namespace irevrnn
