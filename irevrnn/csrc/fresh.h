// Fresh tensors for results.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>

#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace irevrnn {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

inline constexpr size_t huge_page = 2 << 20;

// Memory that begins with a huge page and asks for them; null if there is none.
inline at::DataPtr huge_pages(size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, huge_page, bytes) != 0) return {};
  madvise(data, bytes / huge_page * huge_page, MADV_HUGEPAGE);
  return {data, data, &std::free, at::kCPU};
}

// An uninitialised tensor. The first write to memory that the system has just handed out costs more than
// the recurrence's arithmetic when it comes in pages of 4 KiB; large results ask for pages of 2 MiB.
inline at::Tensor fresh(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const size_t bytes = at::detail::computeStorageNbytesContiguous(sizes, options.dtype().itemsize());
  if (!options.device().is_cpu() || bytes < 2 * huge_page) return at::empty(sizes, options);
  at::DataPtr data = huge_pages(bytes);
  if (!data) return at::empty(sizes, options);  // which says what is wrong
  at::Tensor result = at::empty({0}, options);
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, std::move(data), c10::GetCPUAllocator(), true);
  result.set_(std::move(storage), 0, sizes);
  return result;
}

#else

inline at::Tensor fresh(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::empty(sizes, options);
}

#endif

}  // namespace irevrnn
