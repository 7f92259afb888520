// The scans by the functions that a GPU's threads run, on the CPU: every kernel that is compiled for a GPU, of
// which the library has few. The operators have the signatures of irevrnn's.
#include <torch/library.h>

#include "fixed_ops.h"
#include "scan_op.h"
#include "threads.h"

namespace irevrnn {
namespace {

struct Launch {
  Launch(const Tensor&, bool) {}
  template <class Problem>
  void operator()(const Problem& s) const { run_threads(s); }
};

}  // namespace

TORCH_LIBRARY(irevrnn_threads, m) {
  m.def("scan", &scan_op<Launch>);
  m.def("scan_backward", &scan_backward_op<Launch>);
  m.def("selective_scan", &selective_scan_op<Launch>);
  m.def("selective_scan_backward", &selective_scan_backward_op<Launch>);
  m.def("fixed_scan", &fixed_scan_op<Launch>);
  m.def("fixed_unscan", &fixed_unscan_op<Launch>);
}

}  // namespace irevrnn
