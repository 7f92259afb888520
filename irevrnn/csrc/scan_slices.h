// The scan on the CPU by what the threads of a device do (scan_thread.h): any type, any shape.
#pragma once

#include "scan_grid.h"

namespace irevrnn {

// As many lanes as read whole cache lines and find their scratch in the processor's cache.
constexpr int lanes_of_block = 16;

// Scratch goes where it would go on a device.
inline Grid choose_block(int64_t lanes, int64_t bytes) {
  return Grid::of(lanes, lanes_of_block, bytes * fewest_threads <= most_shared ? bytes : 0);
}

// A block goes through some steps with all its threads before the next, so that rows are read in the order
// of memory. Processors get blocks in the order first, last, second, last but one, ...: packed sequences
// get shorter from block to block.
struct Slices {
  int64_t steps, slice;

  template <class Work>
  int operator()(const Work& work, const Grid& grid) const {
    if constexpr (requires { Work::direction; }) {
      at::parallel_for(0, grid.blocks, 1, [&](int64_t begin, int64_t end) {
        Array<unsigned char> shared(grid.shared);
        for (int64_t i = begin; i < end; ++i) {
          run_slices(work, grid, i % 2 == 0 ? i / 2 : grid.blocks - 1 - i / 2, shared.data());
        }
      });
    } else {
      run_grid(work, grid);
    }
    return 0;
  }

  template <class Work>
  void run_slices(Work work, const Grid& grid, int64_t block, void* shared) const {
    const int64_t count = (steps + slice - 1) / slice;
    for (int64_t i = 0; i < count; ++i) {
      work.begin = (Work::direction > 0 ? i : count - 1 - i) * slice;
      work.end = smaller(steps, work.begin + slice);
      run_block(work, grid, block, shared);
    }
  }
};

template <class T, class IO>
void scan_threads(const Forward<T, IO>& s) {
  scan_on_grid(s, choose_block(s.lanes(), 0), Slices{s.steps, s.block()});
}

template <class T, class IO>
void scan_threads(const Backward<T, IO>& s) {
  const BackwardPlan plan = plan_of(s, choose_block);
  Array<T> workspace(plan.totals + plan.scratch);
  scan_on_grid(s, plan, workspace.data(), Slices{s.steps, s.block()});
}

}  // namespace irevrnn
