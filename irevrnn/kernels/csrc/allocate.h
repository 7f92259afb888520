// Tensors for results, in memory that earlier results gave back: as a page fault each 4 KiB costs more than the arithmetic of
// a recurrence, a training step on large tensors takes three times as long where it gets its memory from the system anew.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
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
inline constexpr size_t huge_page = 2 << 20, smallest_huge_block = 2 * huge_page, smallest_kept = 1 << 17;

struct Block {
  void* data;
  size_t bytes;
};

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
    const Block block = fits ? Block{found->second, found->first} : fresh(bytes);
    if (fits) kept_.erase(found);
    in_use_ += block.bytes;
    most_in_use_ = std::max(most_in_use_, in_use_);
    return block;
  }

  // Keeps a block; the system may take its pages whenever it is short of memory.
  void give_back(const Block& block) {
#if defined(MADV_FREE)
    if (block.bytes >= smallest_huge_block) madvise(block.data, block.bytes / huge_page * huge_page, MADV_FREE);
#endif
    const std::lock_guard<std::mutex> lock(mutex_);
    in_use_ -= block.bytes;
    kept_.emplace(block.bytes, block.data);
  }

  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_down_to(in_use_);
  }

 private:
  // A child must not inherit a lock that another thread of its parent held.
  CachingAllocator() {
    const auto unlock = [] { of_process().mutex_.unlock(); };
    pthread_atfork([] { of_process().mutex_.lock(); }, unlock, unlock);
  }

  // Small blocks go first: they cost least to get again.
  void free_down_to(size_t bytes) {
    while (!kept_.empty() && held_ > bytes) {
      const auto smallest = kept_.begin();
      held_ -= smallest->first;
      std::free(smallest->second);
      kept_.erase(smallest);
    }
  }

  Block fresh(size_t bytes) {
    const size_t most = std::max(most_in_use_, in_use_ + bytes);
    free_down_to(most + most / 8 - bytes);
    void* data = nullptr;
    const bool huge = bytes >= smallest_huge_block;
    if (posix_memalign(&data, huge ? huge_page : 64, bytes) != 0) return {nullptr, 0};  // 64: a line of the cache
#if defined(MADV_HUGEPAGE)
    if (huge) madvise(data, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    held_ += bytes;
    return {data, bytes};
  }

  std::mutex mutex_;
  std::multimap<size_t, void*> kept_;  // by size
  size_t held_ = 0, in_use_ = 0, most_in_use_ = 0;  // bytes; held are those in use and those kept
};

// An uninitialised tensor: one that is not small lies where one like it lay before, and the dispatcher, which takes longer
// than a small one, is left out.
inline at::Tensor allocate(at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (!options.device().is_cpu()) return at::empty(sizes, options);
  const size_t bytes = at::detail::computeStorageNbytesContiguous(sizes, options.dtype().itemsize());
  const Block block = bytes < smallest_kept ? Block{nullptr, 0} : CachingAllocator::of_process().take(bytes);
  if (!block.data) return at::Tensor(at::detail::empty_cpu(sizes, options));  // which says what is wrong, too
  return at::for_blob(block.data, sizes)
      .options(options)
      .deleter([block](void*) { CachingAllocator::of_process().give_back(block); })
      .resizeable_storage()
      .allocator(c10::GetCPUAllocator())
      .make_tensor();
}

}  // namespace irevrnn
