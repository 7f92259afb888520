// Tensors for results, in memory that earlier results gave back.
//
// A step of training asks for the blocks of the step before. Where each goes back to the system in between, the
// first write to it costs more than the arithmetic of a recurrence: a page fault each 4 KiB, or each 2 MiB in large
// blocks, which ask for such pages.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <mutex>

#include <pthread.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace irevrnn {

// The size of large pages, and of the smallest blocks that ask for them and that are worth keeping.
inline constexpr size_t huge_page = 2 << 20, smallest_huge_block = 2 * huge_page, smallest_kept = 1 << 18;

struct Block {
  void* data;
  size_t bytes;
};

// Advises the system on the complete pages of a large block.
inline void advise([[maybe_unused]] const Block& block, [[maybe_unused]] int advice) {
#if defined(__linux__)
  if (block.bytes >= smallest_huge_block) madvise(block.data, block.bytes / huge_page * huge_page, advice);
#endif
}

// Keeps large blocks that tensors gave back, for the next that want as much. Blocks in use and blocks kept are together at
// most an eighth more than were once in use at the same time.
class CachingAllocator {
 public:
  // One for the process; it outlives all tensors.
  static CachingAllocator& of_process() {
    static CachingAllocator* const allocator = new CachingAllocator;
    return *allocator;
  }

  // A block of at least `bytes`, one that is kept if it is at most an eighth too large; null where there is no memory.
  Block take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = kept_.lower_bound(bytes);
    const bool fits = found != kept_.end() && found->first <= bytes + bytes / 8;
    const Block block = fits ? remove(found) : fresh(bytes);
    if (block.data) in_use_ += block.bytes;
    most_in_use_ = std::max(most_in_use_, in_use_);
    return block;
  }

  // Keeps a block; the system may take its pages whenever it is short of memory.
  void give_back(const Block& block) {
#if defined(MADV_FREE)
    advise(block, MADV_FREE);
#endif
    const std::lock_guard<std::mutex> lock(mutex_);
    in_use_ -= block.bytes;
    kept_bytes_ += block.bytes;
    kept_.emplace(block.bytes, block.data);
  }

  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_all_but(0);
  }

 private:
  // A child must not inherit a lock that another thread of its parent held.
  CachingAllocator() {
    const auto unlock = [] { of_process().mutex_.unlock(); };
    pthread_atfork([] { of_process().mutex_.lock(); }, unlock, unlock);
  }

  using Kept = std::multimap<size_t, void*>;

  Block remove(Kept::iterator which) {
    const auto node = kept_.extract(which);
    kept_bytes_ -= node.key();
    return {node.mapped(), node.key()};
  }
  // Small blocks go first: they cost least to get again.
  void free_all_but(size_t bytes) {
    while (!kept_.empty() && kept_bytes_ > bytes) std::free(remove(kept_.begin()).data);
  }

  Block fresh(size_t bytes) {
    const size_t wanted = in_use_ + bytes, most = std::max(most_in_use_, wanted);
    free_all_but(most + most / 8 - wanted);
    void* data = nullptr;
    const size_t alignment = bytes < smallest_huge_block ? 64 : huge_page;  // a line of the cache, or a page
    if (posix_memalign(&data, alignment, bytes) != 0) return {nullptr, 0};
    const Block block{data, bytes};
#if defined(MADV_HUGEPAGE)
    advise(block, MADV_HUGEPAGE);
#endif
    return block;
  }

  std::mutex mutex_;
  Kept kept_;  // by size
  size_t kept_bytes_ = 0, in_use_ = 0, most_in_use_ = 0;
};

// An uninitialised tensor: one that is not small lies where one like it lay before.
inline at::Tensor allocate(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const size_t bytes = at::detail::computeStorageNbytesContiguous(sizes, options.dtype().itemsize());
  if (!options.device().is_cpu() || bytes < smallest_kept) return at::empty(sizes, options);
  const Block block = CachingAllocator::of_process().take(bytes);
  if (!block.data) return at::empty(sizes, options);  // which says what is wrong
  const auto give_back = [](void* context) {
    const Block* mine = static_cast<Block*>(context);
    CachingAllocator::of_process().give_back(*mine);
    delete mine;
  };
  at::DataPtr data(block.data, new Block(block), give_back, at::kCPU);
  at::Tensor result = at::empty({0}, options);
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, std::move(data), c10::GetCPUAllocator(), true);
  result.set_(std::move(storage), 0, sizes);
  return result;
}

}  // namespace irevrnn
