// One lane at a time: any dtype, any shape, and the same functions as a CUDA thread runs.
#include "scan_driver.h"

namespace irevrnn {

template <class T>
struct ScalarTiles {
  static constexpr int width = 1;
  template <class Fn>
  static void each(int64_t first, int64_t past_last, const Fn& fn) {
    for (int64_t lane = first; lane < past_last; ++lane) fn(ScalarTile<T>{}, lane);
  }
};

template <class T>
void scan_scalar(const Forward<T>& s) { run_any<ScalarTiles<T>>(s); }
template <class T>
void scan_scalar(const Backward<T>& s) { run_any<ScalarTiles<T>>(s); }

template void scan_scalar(const Forward<float>&);
template void scan_scalar(const Forward<double>&);
template void scan_scalar(const Backward<float>&);
template void scan_scalar(const Backward<double>&);

}  // namespace irevrnn
