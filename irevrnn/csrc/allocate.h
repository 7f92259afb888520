// Tensors for results, from the caching allocator.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>

#include "caching_allocator.h"

namespace irevrnn {

// Null if there is no memory.
inline at::DataPtr block_data(size_t bytes) {
  const Block block = CachingAllocator::of_process().take(bytes);
  if (!block.data) return {};
  const auto give_back = [](void* context) {
    const Block* mine = static_cast<Block*>(context);
    CachingAllocator::of_process().give_back(*mine);
    delete mine;
  };
  return {block.data, new Block(block), give_back, at::kCPU};
}

// An uninitialised tensor: one that is not small lies where one like it lay before, and a large one in pages of
// 2 MiB, where the system has them.
inline at::Tensor allocate(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const size_t bytes = at::detail::computeStorageNbytesContiguous(sizes, options.dtype().itemsize());
  if (!options.device().is_cpu() || bytes < smallest_kept) return at::empty(sizes, options);
  at::DataPtr data = block_data(bytes);
  if (!data) return at::empty(sizes, options);  // which says what is wrong
  at::Tensor result = at::empty({0}, options);
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, std::move(data), c10::GetCPUAllocator(), true);
  result.set_(std::move(storage), 0, sizes);
  return result;
}

}  // namespace irevrnn
