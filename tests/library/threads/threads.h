// What the sources here share: each of the others compiles the kernels of one type.
#pragma once

#include "fixed_scan.h"
#include "scan.h"

namespace irevrnn {

template <class T, class IO>
void run_threads(const Forward<T, IO>& s);
template <class T, class IO>
void run_threads(const Backward<T, IO>& s);
template <class T>
void run_threads(const LaneForward<T>& s);
template <class T>
void run_threads(const FixedInverse<T>& s);
void run_threads(const LaneWords& s);

}  // namespace irevrnn
