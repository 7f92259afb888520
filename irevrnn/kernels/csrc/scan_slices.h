// The scans on the CPU by the functions that the threads of a device run (scan_thread.h, fixed_thread.h).
#pragma once

#include "scan_grid.h"

namespace irevrnn {

// As many lanes as read whole cache lines and find their scratch in the processor's cache.
constexpr int lanes_of_block = 16;

// Scratch goes where it would go on a device.
inline Grid choose_block(int64_t lanes, int64_t bytes) {
  return Grid::of(lanes, lanes_of_block, bytes * fewest_threads <= most_shared ? bytes : 0);
}

// A block goes through some steps with all its threads before the next, so that rows are read in the order of memory. A
// device, and the tests of what it does, take all steps at once.
template <class Instances>
struct Slices : Instances {
  int64_t steps, slice;
  template <class T>
  Slices(const Sizes<T>& s, int64_t slice_) : steps(s.steps), slice(slice_ > 0 ? slice_ : s.block()) {}

  template <class Work>
  int operator()(const Work& work, const Grid& grid) const {
    if constexpr (requires { Work::direction; }) {
      const int64_t count = (steps + slice - 1) / slice;
      for_each_block(grid, [&](int64_t block, void* shared) {
        for (int64_t i = 0; i < count; ++i) {
          Work part = work;
          part.begin = (Work::direction > 0 ? i : count - 1 - i) * slice;
          part.end = smaller(steps, part.begin + slice);
          run_block(part, grid, block, shared);
        }
      });
    } else {
      run_grid(work, grid);
    }
    return 0;
  }
};

template <class Instances, class T>
void scan_in_slices(const Backward<T>& s, int64_t slice = 0) {
  const BackwardPlan plan = plan_of<Instances>(s, choose_block);
  Array<T> workspace(plan.totals + plan.scratch);
  scan_on_grid(s, plan, workspace.data(), Slices<Instances>(s, slice));
}

// Forward, LaneForward or FixedInverse.
template <class Instances, class Problem>
void scan_in_slices(const Problem& s, int64_t slice = 0) {
  scan_on_grid(s, choose_block(s.lanes(), 0), Slices<Instances>(s, slice));
}

}  // namespace irevrnn
