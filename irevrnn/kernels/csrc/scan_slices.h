// The scans on the CPU by the functions that the threads of a device run (scan_thread.h, fixed_thread.h).
#pragma once

#include "scan_grid.h"

namespace irevrnn {

// As many lanes as read whole cache lines and find their scratch in the processor's cache.
constexpr int lanes_of_block = 16;

// A block goes through some steps with all its threads before the next, in the order of memory; on a device, through all.
template <class Instances>
struct Slices : Instances {
  int64_t steps, slice;
  template <class T>
  Slices(const Sizes<T>& s, int64_t slice) : steps(s.steps), slice(slice) {}

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
void scan_in_slices(const Backward<T>& s, int64_t slice = usual_interval) {
  const Grid grid = Grid::of(s.lanes(), lanes_of_block, scratch_bytes<Instances>(s));
  Array<T> workspace(workspace_numbers(s));
  scan_on_grid(s, grid, workspace.data(), Slices<Instances>(s, slice));
}

// Forward, LaneForward or FixedInverse.
template <class Instances, class Problem>
void scan_in_slices(const Problem& s, int64_t slice = usual_interval) {
  scan_on_grid(s, Grid::of(s.lanes(), lanes_of_block), Slices<Instances>(s, slice));
}

}  // namespace irevrnn
