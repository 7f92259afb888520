#include "kernels.h"

namespace irevrnn {

template void run_threads(const Forward<float, bfloat16>&);
template void run_threads(const Backward<float, bfloat16>&);

}  // namespace irevrnn
