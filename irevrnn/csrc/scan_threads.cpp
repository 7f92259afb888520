// The scans on the CPU by the functions that the threads of a device run, for float and double.
#include "scan_slices.h"

namespace irevrnn {

template <class T, class IO>
void scan_threads(const Forward<T, IO>& s) { scan_in_slices<FewInstances>(s); }
template <class T, class IO>
void scan_threads(const Backward<T, IO>& s) { scan_in_slices<FewInstances>(s); }

template void scan_threads(const Forward<float>&);
template void scan_threads(const Backward<float>&);
template void scan_threads(const Forward<double>&);
template void scan_threads(const Backward<double>&);

template <class T>
void fixed_scan_threads(const LaneForward<T>& s) { fixed_scan_in_slices<FewInstances>(s); }
template <class T>
void fixed_scan_threads(const FixedInverse<T>& s) { fixed_scan_in_slices<FewInstances>(s); }
void fixed_scan_threads(const LaneWords& s) { run_grid(GatherWork{s}, Grid::of(s.lanes)); }

template void fixed_scan_threads(const LaneForward<float>&);
template void fixed_scan_threads(const LaneForward<double>&);
template void fixed_scan_threads(const FixedInverse<float>&);
template void fixed_scan_threads(const FixedInverse<double>&);

}  // namespace irevrnn
