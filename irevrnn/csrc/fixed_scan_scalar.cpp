// The fixed-point scan one lane at a time: any dtype, any shape.
#include "fixed_driver.h"

namespace irevrnn {

template <class T>
struct FixedScalarTiles {
  static constexpr int width = 1;
  template <class Fn>
  static void each(int64_t first, int64_t past_last, const Fn& fn) {
    for (int64_t lane = first; lane < past_last; ++lane) fn(FixedScalarTile<T>{}, lane);
  }
  template <class Fn>
  static void each_reversed(int64_t first, int64_t past_last, const Fn& fn) {
    for (int64_t lane = past_last - 1; lane >= first; --lane) fn(FixedScalarTile<T>{}, lane);
  }
};

template <class T>
void fixed_scan_scalar(FixedForward<T>& s) { run_fixed<FixedScalarTiles<T>>(s); }
template <class T>
void fixed_scan_scalar(FixedInverse<T>& s) { run_fixed<FixedScalarTiles<T>>(s); }

template void fixed_scan_scalar(FixedForward<float>&);
template void fixed_scan_scalar(FixedForward<double>&);
template void fixed_scan_scalar(FixedInverse<float>&);
template void fixed_scan_scalar(FixedInverse<double>&);

}  // namespace irevrnn
