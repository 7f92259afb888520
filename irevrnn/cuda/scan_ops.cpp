// The CUDA kernels of the operators irevrnn::scan and irevrnn::scan_backward.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "row_starts.h"
#include "scan_op.h"

namespace irevrnn {
namespace {

// On the current stream, without waiting for the device: so a graph may capture it.
struct LaunchOnCuda {
  static constexpr bool halves = true;
  at::TensorOptions options;  // of a tensor on the device

  template <class T, class IO>
  void operator()(Forward<T, IO> s) const {
    const Tensor starts = starts_on_device(s, options);
    C10_CUDA_CHECK(scan_on_device(s, c10::cuda::getCurrentCUDAStream()));
  }

  template <class T, class IO>
  void operator()(Backward<T, IO> s) const {
    const Tensor starts = starts_on_device(s, options);
    const Tensor workspace =
        at::empty({workspace_numbers(s)}, options.dtype(c10::CppTypeToScalarType<T>::value));
    C10_CUDA_CHECK(scan_on_device(s, write<T>(workspace), c10::cuda::getCurrentCUDAStream()));
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> scan(
    const Tensor& z, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b,
    const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool /* vectorize: for the CPU */,
    const std::optional<Tensor>& resets) {
  const c10::cuda::CUDAGuard guard(z.device());
  return scan_op(z, h_0, c_0, u, a, b, batch_sizes, activation, coupling_activation, interval, resets,
                 LaunchOnCuda{z.options()});
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward(
    const std::optional<Tensor>& grad_out, const std::optional<Tensor>& grad_h_n,
    const std::optional<Tensor>& grad_c_n, const Tensor& out, const Tensor& saved, const Tensor& h_0,
    const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b,
    const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool /* vectorize */,
    const std::optional<Tensor>& resets) {
  const c10::cuda::CUDAGuard guard(out.device());
  return scan_backward_op(grad_out, grad_h_n, grad_c_n, out, saved, h_0, c_0, u, a, b, batch_sizes,
                          activation, coupling_activation, interval, resets, LaunchOnCuda{out.options()});
}

}  // namespace

TORCH_LIBRARY_IMPL(irevrnn, CUDA, m) {
  m.impl("scan", &scan);
  m.impl("scan_backward", &scan_backward);
}

}  // namespace irevrnn
