#include "kernels.h"

namespace irevrnn {

template void run_threads(const Forward<float>&);
template void run_threads(const Backward<float>&);
template void run_threads(const LaneForward<float>&);
template void run_threads(const FixedInverse<float>&);
void run_threads(const LaneWords& s) { run_grid(GatherWork{s}, Grid::of(s.lanes)); }

}  // namespace irevrnn
