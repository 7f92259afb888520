// The definitions of threads.h, for one type of sequence each. Like those of a device, threads take all steps at once.
#pragma once

#include "scan_slices.h"
#include "threads.h"

namespace irevrnn {

template <class T, class IO>
void run_threads(const Forward<T, IO>& s) { scan_in_slices<AllInstances>(s, s.steps); }
template <class T, class IO>
void run_threads(const Backward<T, IO>& s) { scan_in_slices<AllInstances>(s, s.steps); }
template <class T>
void run_threads(const LaneForward<T>& s) { fixed_scan_in_slices<AllInstances>(s, s.steps); }
template <class T>
void run_threads(const FixedInverse<T>& s) { fixed_scan_in_slices<AllInstances>(s, s.steps); }

}  // namespace irevrnn
