// The memory of a stack of words (Words in bit_stack.h), whose pushes and pops do not look where it ends.
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
  WordStack(const uint16_t* words, int64_t count) : unread_(words), unread_count_(count) {}

  // The top, from which `count` words may be pushed or popped before the next call. Where fewer are left, zeros
  // come, which a buffer that was tampered with may ask for.
  Words& with_room(int64_t count) {
    ran_dry_ |= buffered() < 0;
    count += vector_lanes;  // a vector of words is written and read at once, though few of them are meant
    const bool low = buffered() < count && unread_count_ > 0;
    if (low || margin_ < count || words_.top + count > memory_.data() + memory_.size()) move(count);
    return words_;
  }

  void clear() { words_.top = bottom(); }
  bool ran_dry() const { return ran_dry_ || buffered() < 0; }
  int64_t size() const { return buffered() + unread_count_; }
  std::vector<uint16_t> all() const { return {bottom(), bottom() + buffered()}; }

 private:
  uint16_t* bottom() { return memory_.data() + margin_; }
  const uint16_t* bottom() const { return memory_.data() + margin_; }
  // Words in memory_; negative where more were popped than there were.
  int64_t buffered() const { return words_.top - bottom(); }

  // To an array with zeros below, words that were not read yet, those that were, and room above.
  void move(int64_t count) {
    const int64_t kept = std::max<int64_t>(0, buffered());
    const int64_t read = kept < count ? std::min(unread_count_, 2 * count) : 0;
    std::vector<uint16_t> wider(count + read + 2 * kept + 2 * count);
    unread_count_ -= read;
    const auto middle = std::copy_n(unread_ + unread_count_, read, wider.begin() + count);
    std::copy_n(bottom(), kept, middle);
    memory_.swap(wider);
    margin_ = count;
    words_.top = bottom() + read + kept;
  }

  std::vector<uint16_t> memory_;
  int64_t margin_ = 0;  // words below the bottom
  Words words_{nullptr};
  const uint16_t* unread_ = nullptr;
  int64_t unread_count_ = 0;
  bool ran_dry_ = false;
};

}  // namespace irevrnn
