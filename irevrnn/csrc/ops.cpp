// The schema of the operators irevrnn::scan and irevrnn::scan_backward, and their CPU kernels.
#include <torch/library.h>

#include "scan_op.h"

namespace irevrnn {
namespace {

// The vectorised kernel is for float alone.
struct LaunchOnCpu {
  bool vectorize;
  template <template <class, class> class Problem, class T, class IO>
  void operator()(const Problem<T, IO>& s) const {
    if constexpr (std::is_same_v<IO, float>) {
      if (vectorize) return scan_vector(s);
    }
    scan_threads(s);
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> scan(
    const Tensor& z, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b,
    const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool vectorize) {
  return scan_op(z, h_0, c_0, u, a, b, batch_sizes, activation, coupling_activation, interval,
                 LaunchOnCpu{vectorize});
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward(
    const std::optional<Tensor>& grad_out, const std::optional<Tensor>& grad_h_n,
    const std::optional<Tensor>& grad_c_n, const Tensor& out, const Tensor& saved, const Tensor& h_0,
    const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b,
    const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool vectorize) {
  return scan_backward_op(grad_out, grad_h_n, grad_c_n, out, saved, h_0, c_0, u, a, b, batch_sizes,
                          activation, coupling_activation, interval, LaunchOnCpu{vectorize});
}

Tensor allocate_like(const Tensor& like, at::IntArrayRef sizes) { return allocate(sizes, like.options()); }

}  // namespace

TORCH_LIBRARY(irevrnn, m) {
  m.def("allocate(Tensor like, int[] sizes) -> Tensor");
  m.def("empty_cache() -> ()", []() { CachingAllocator::of_process().release(); });
  m.def(
      "scan(Tensor z, Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, Tensor? batch_sizes, "
      "str activation, str coupling_activation, int interval, bool vectorize) "
      "-> (Tensor out, Tensor h_n, Tensor c_n, Tensor saved)");
  m.def(
      "scan_backward(Tensor? grad_out, Tensor? grad_h_n, Tensor? grad_c_n, Tensor out, Tensor saved, "
      "Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, Tensor? batch_sizes, "
      "str activation, str coupling_activation, int interval, bool vectorize) "
      "-> (Tensor grad_z, Tensor grad_h_0, Tensor grad_c_0, Tensor grad_u, Tensor grad_a, "
      "Tensor grad_b)");
}

TORCH_LIBRARY_IMPL(irevrnn, CPU, m) {
  m.impl("allocate", &allocate_like);
  m.impl("scan", &scan);
  m.impl("scan_backward", &scan_backward);
}

}  // namespace irevrnn
