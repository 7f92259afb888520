// The caching allocator: keeps large blocks of memory that tensors gave back, for the next that want as much.
//
// A step of training asks for the blocks of the step before. Where each goes back to the system in between, the
// first write to it costs more than the arithmetic of a recurrence: a page fault each 4 KiB, or each 2 MiB in large
// blocks, which ask for such pages.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace irevrnn {

// The size of large pages, and of the smallest blocks that ask for them and that are worth keeping.
inline constexpr size_t huge_page = 2 << 20, smallest_huge_block = 2 * huge_page, smallest_kept = 1 << 18;

struct Block {
  void* data = nullptr;
  size_t bytes = 0;
};

// Blocks in use and blocks kept are together at most an eighth more than were once in use at the same time: or a
// small block, wanted when others fill all that, would cost a large one its place. The system may take the pages of
// one that is kept whenever it is short of memory.
class CachingAllocator {
 public:
  // One for the process; it outlives all tensors.
  static CachingAllocator& of_process() {
    static CachingAllocator* const blocks = [] {
      process_ = new CachingAllocator;
#if !defined(_WIN32)
      // A child must not inherit a lock that another thread of its parent held.
      pthread_atfork([] { process_->mutex_.lock(); }, [] { process_->mutex_.unlock(); },
                     [] { process_->mutex_.unlock(); });
#endif
      return process_;
    }();
    return *blocks;
  }

  // A block of at least `bytes`; none where there is no memory.
  Block take(size_t bytes) {
    Block block = find(bytes);
    if (!block.data) block = allocate(bytes);
    if (!block.data) {
      release();
      block = allocate(bytes);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!block.data) in_use_ -= bytes;
    most_in_use_ = std::max(most_in_use_, in_use_);
    return block;
  }

  void give_back(const Block& block) {
#if defined(__linux__) && defined(MADV_FREE)
    advise(block, MADV_FREE);
#endif
    const std::lock_guard<std::mutex> lock(mutex_);
    in_use_ -= block.bytes;
    kept_ += block.bytes;
    freed_.push_back({block, taken_});
  }

  // Gives all that is kept to the system.
  void release() {
    std::vector<Freed> all;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      all.swap(freed_);
      kept_ = 0;
    }
    for (const Freed& freed : all) std::free(freed.block.data);
  }

 private:
  struct Freed {
    Block block;
    int64_t since;  // taken_ when it was freed
  };
  // A block that nobody wanted while this many were taken is released.
  static constexpr int64_t patience = 1024;

  // A block that is kept and at most an eighth too large; or none, and then room is made for another.
  Block find(size_t bytes) {
    std::vector<Freed> gone;
    Block found;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++taken_;
      auto best = freed_.end();
      for (auto it = freed_.begin(); it != freed_.end(); ++it) {
        const size_t size = it->block.bytes;
        if (size >= bytes && size <= bytes + bytes / 8 && (best == freed_.end() || size < best->block.bytes)) best = it;
      }
      if (best != freed_.end()) found = remove(best).block;
      in_use_ += found.data ? found.bytes : bytes;
      const size_t most = std::max(most_in_use_, in_use_), limit = most + most / 8;
      while (!freed_.empty() && taken_ - freed_.front().since > patience) gone.push_back(remove(freed_.begin()));
      while (!freed_.empty() && in_use_ + kept_ > limit) gone.push_back(remove(smallest()));
    }
    for (const Freed& freed : gone) std::free(freed.block.data);
    return found;
  }

  // Takes one from those that are kept.
  Freed remove(std::vector<Freed>::iterator which) {
    const Freed freed = *which;
    kept_ -= freed.block.bytes;
    freed_.erase(which);
    return freed;
  }

  // Of those that are kept, the one that costs least to get again.
  std::vector<Freed>::iterator smallest() {
    return std::min_element(freed_.begin(), freed_.end(),
                            [](const Freed& x, const Freed& y) { return x.block.bytes < y.block.bytes; });
  }

  static Block allocate(size_t bytes) {
    void* data = nullptr;
    const size_t alignment = bytes < smallest_huge_block ? 64 : huge_page;  // a line of the cache, or a page
    if (posix_memalign(&data, alignment, bytes) != 0) return {};
    const Block block{data, bytes};
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    advise(block, MADV_HUGEPAGE);
#endif
    return block;
  }

#if defined(__linux__)
  // Advises the system on the complete pages of a large block.
  static void advise(const Block& block, int advice) {
    if (block.bytes >= smallest_huge_block) madvise(block.data, block.bytes / huge_page * huge_page, advice);
  }
#endif

  inline static CachingAllocator* process_ = nullptr;
  std::mutex mutex_;
  std::vector<Freed> freed_;  // the one that was freed first comes first
  size_t in_use_ = 0, kept_ = 0, most_in_use_ = 0;
  int64_t taken_ = 0;
};

}  // namespace irevrnn
