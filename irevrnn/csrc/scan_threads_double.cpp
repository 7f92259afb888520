// The scan by what the threads of a device do, for sequences of double.
#include "scan_slices.h"

namespace irevrnn {

template void scan_threads(const Forward<double>&);
template void scan_threads(const Backward<double>&);

}  // namespace irevrnn
