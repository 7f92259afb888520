// The fixed-point scan on the CPU by what the threads of a device do: any dtype, any shape.
#include "fixed_grid.h"
#include "scan_slices.h"

namespace irevrnn {

template <class T>
void fixed_scan_threads(const LaneForward<T>& s) {
  fixed_scan_on_grid(s, choose_block(s.lanes(), 0), Slices{s.steps, s.block()});
}

template <class T>
void fixed_scan_threads(const FixedInverse<T>& s) {
  fixed_scan_on_grid(s, choose_block(s.lanes(), 0), Slices{s.steps, s.block()});
}

void fixed_scan_threads(const LaneWords& s) { run_grid(GatherWork{s}, Grid::of(s.lanes)); }

template void fixed_scan_threads(const LaneForward<float>&);
template void fixed_scan_threads(const LaneForward<double>&);
template void fixed_scan_threads(const FixedInverse<float>&);
template void fixed_scan_threads(const FixedInverse<double>&);

}  // namespace irevrnn
