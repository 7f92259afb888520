// The scans by the functions that a GPU's threads run, on the CPU: every kernel that is compiled for a GPU, sequences of
// 16 bits included, of which the library has few. The operators have the signatures of irevrnn's.
#include <torch/library.h>

#include "fixed_lane_ops.h"
#include "scan_op.h"
#include "threads.h"

namespace irevrnn {
namespace {

struct Launch {
  static constexpr bool halves = true;
  Launch(const Tensor&, bool) {}
  template <class Problem>
  void operator()(const Problem& s) const { run_threads(s); }
};
const auto run_fixed = [](const auto& s) { run_threads(s); };

FixedResults fixed_scan(const Tensor& z, at::TensorList states, int64_t steps, const Tensor& u, const Tensor& a,
                        const Tensor& b, c10::string_view activation, c10::string_view coupling_activation, bool record,
                        bool save, bool, const std::optional<Tensor>& resets,
                        const std::optional<Tensor>& batch_sizes) {
  const FixedStates before(states);
  const auto inputs = [&] {
    return FixedTensors(z, before, steps, before.h.numel(), false, u, a, b, activation, coupling_activation,
                        save, resets, batch_sizes);
  };
  return scan_lanes(inputs, record, run_fixed);
}

FixedInverseResults fixed_unscan(const Tensor& z, at::TensorList states, int64_t steps, const Tensor& words, const Tensor& starts,
                                 const Tensor& counts, const Tensor& u, const Tensor& a, const Tensor& b,
                                 c10::string_view activation, c10::string_view coupling_activation, bool,
                                 const std::optional<Tensor>& resets,
                                 const std::optional<Tensor>& batch_sizes) {
  const FixedStates after(states);
  const FixedTensors x(z, after, steps, after.h.numel(), true, u, a, b, activation, coupling_activation,
                       true, resets, batch_sizes);
  return unscan_lanes(x, FixedWords(z, words, starts, counts), run_fixed);
}

}  // namespace

TORCH_LIBRARY(irevrnn_threads, m) {
  m.def("scan", &scan_op<Launch>);
  m.def("scan_backward", &scan_backward_op<Launch>);
  m.def("fixed_scan", &fixed_scan);
  m.def("fixed_unscan", &fixed_unscan);
}

}  // namespace irevrnn
