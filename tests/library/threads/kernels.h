// The definition of run_threads in threads.h. Like those of a device, threads take all steps at once.
#pragma once

#include "scan_slices.h"
#include "threads.h"

namespace irevrnn {

template <class Problem>
void run_threads(const Problem& s) { scan_in_slices<AllInstances>(s, s.steps); }

}  // namespace irevrnn
