// The scans on the CPU by the functions that the threads of a device run, for float and double.
#include "scan_slices.h"

namespace irevrnn {

template <class Problem>
void scan_threads(const Problem& s) { scan_in_slices<FewInstances>(s); }
void scan_threads(const LaneWords& s) { run_grid(GatherWork{s}, Grid::of(s.lanes)); }

template void scan_threads(const Forward<float>&);
template void scan_threads(const Forward<double>&);
template void scan_threads(const Backward<float>&);
template void scan_threads(const Backward<double>&);
template void scan_threads(const LaneForward<float>&);
template void scan_threads(const LaneForward<double>&);
template void scan_threads(const FixedInverse<float>&);
template void scan_threads(const FixedInverse<double>&);

}  // namespace irevrnn
