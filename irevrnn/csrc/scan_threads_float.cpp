// The scan by what the threads of a device do, for sequences of float.
#include "scan_slices.h"

namespace irevrnn {

template void scan_threads(const Forward<float>&);
template void scan_threads(const Backward<float>&);

}  // namespace irevrnn
