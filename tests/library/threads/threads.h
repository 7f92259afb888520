// What the sources here share: each of the others compiles the kernels of one type.
#pragma once

#include "fixed_scan.h"

namespace irevrnn {

template <class Problem>
void run_threads(const Problem& s);
void run_threads(const LaneWords& s);

}  // namespace irevrnn
