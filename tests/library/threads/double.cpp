#include "kernels.h"

namespace irevrnn {

template void run_threads(const Forward<double>&);
template void run_threads(const Backward<double>&);
template void run_threads(const LaneForward<double>&);
template void run_threads(const FixedInverse<double>&);

}  // namespace irevrnn
