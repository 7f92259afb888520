#include "kernels.h"

namespace irevrnn {

template void run_threads(const Forward<float, float16>&);
template void run_threads(const Backward<float, float16>&);

}  // namespace irevrnn
