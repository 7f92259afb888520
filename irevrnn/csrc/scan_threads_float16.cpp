// The scan by what the threads of a device do, for sequences of float16, in float within.
#include "scan_slices.h"

namespace irevrnn {

template void scan_threads(const Forward<float, float16>&);
template void scan_threads(const Backward<float, float16>&);

}  // namespace irevrnn
