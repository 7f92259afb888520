// The scan by what the threads of a device do, for sequences of bfloat16, in float within.
#include "scan_slices.h"

namespace irevrnn {

template void scan_threads(const Forward<float, bfloat16>&);
template void scan_threads(const Backward<float, bfloat16>&);

}  // namespace irevrnn
