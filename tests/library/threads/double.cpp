#include "kernels.h"

namespace irevrnn {

template void run_threads(const Forward<double, double>&);
template void run_threads(const Backward<double, double>&);
template void run_threads(const LaneForward<double>&);
template void run_threads(const FixedInverse<double>&);

}  // namespace irevrnn
