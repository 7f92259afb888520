// The memory of a stack (Bits in bit_stack.h), whose pushes and pops do not look where it ends.
#pragma once

#include <algorithm>
#include <vector>

#include "bit_stack.h"

namespace irevrnn {

class WordStack {
 public:
  WordStack() = default;
  // A stack of these words, read from the last on as they are needed: each of the many short inverse passes
  // through a long sequence copies its own part alone.
  WordStack(const uint32_t* words, int64_t count) : unread_(words), unread_count_(count) {}

  // The top, from which `count` words may be pushed or popped before the next call. Where fewer are left, zeros
  // come, which a buffer that was tampered with may ask for.
  Bits& with_room(int64_t count) {
    if (buffered() < 0) {  // the zeros below are as many as one call may take
      ran_dry_ = true;
      bits_.top = bottom();
    }
    count += 1;  // the word on top is written and read, whether it is meant or not
    const bool low = buffered() < count && unread_count_ > 0;
    if (low || margin_ < count || bits_.top + count > memory_.data() + memory_.size()) move(count);
    return bits_;
  }

  void clear() { bits_.top = bottom(); }
  Tail& tail() { return bits_.tail; }
  bool ran_dry() const { return ran_dry_ || buffered() < 0; }
  int64_t size() const { return buffered() + unread_count_; }
  std::vector<uint32_t> all() const { return {bottom(), bottom() + buffered()}; }

 private:
  uint32_t* bottom() { return memory_.data() + margin_; }
  const uint32_t* bottom() const { return memory_.data() + margin_; }
  // Words in memory_; negative where more were popped than there were.
  int64_t buffered() const { return bits_.top - bottom(); }

  // To an array with zeros below, words that were not read yet, those that were, and room above.
  void move(int64_t count) {
    const int64_t kept = std::max<int64_t>(0, buffered());
    const int64_t read = kept < count ? std::min(unread_count_, 2 * count) : 0;
    std::vector<uint32_t> wider(count + read + 2 * kept + 2 * count);
    unread_count_ -= read;
    const auto middle = std::copy_n(unread_ + unread_count_, read, wider.begin() + count);
    std::copy_n(bottom(), kept, middle);
    memory_.swap(wider);
    margin_ = count;
    bits_.top = bottom() + read + kept;
  }

  std::vector<uint32_t> memory_;
  int64_t margin_ = 0;  // words below the bottom
  Bits bits_{nullptr, {}};
  const uint32_t* unread_ = nullptr;
  int64_t unread_count_ = 0;
  bool ran_dry_ = false;
};

}  // namespace irevrnn
