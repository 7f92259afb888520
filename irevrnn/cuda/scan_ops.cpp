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
  LaunchOnCuda(const Tensor& like, bool /* vectorize: for the CPU */) : guard(like.device()), options(like.options()) {}

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

  c10::cuda::CUDAGuard guard;
  at::TensorOptions options;  // of a tensor on the device
};

}  // namespace

TORCH_LIBRARY_IMPL(irevrnn, CUDA, m) {
  m.impl("scan", &scan_op<LaunchOnCuda>);
  m.impl("scan_backward", &scan_backward_op<LaunchOnCuda>);
}

}  // namespace irevrnn
