// The operators' schemas, their kernels on the CPU, and the gradient of irevrnn::scan on any device. In one file,
// since most of its compilation goes into PyTorch's headers.
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <torch/library.h>

#include "block_ops.h"
#include "launch_on_cpu.h"
#include "scan_autograd.h"
#include "scan_op.h"

namespace irevrnn {
namespace {

// Of any numbers: a sum weighted by odd numbers, which any one changed bit changes, and which wraps around alike in any order.
// Those of bit stacks, int64, are 1 where there is nothing, and count for nothing then: before the first chunk there are none.
Tensor state_hash(at::TensorList states) {
  uint64_t sum = 0, weight = hash_first;
  const auto add = [&](const auto* x, int64_t count, int64_t less) {
    for (int64_t i = 0; i < count; ++i, weight += hash_step) sum += static_cast<uint64_t>(x[i] - less) * weight;
  };
  for (const Tensor& x_ : states) {
    const Tensor x = x_.contiguous();
    if (x.scalar_type() == at::kInt) {
      add(x.const_data_ptr<int32_t>(), x.numel(), 0);
    } else {
      add(x.const_data_ptr<int64_t>(), x.numel(), 1);
    }
  }
  return at::full({}, static_cast<int64_t>(sum), at::kLong);
}

// A step of a layer, with its projection, norm and recurrence: by the operators that compute these for a sequence, so it
// gives their bits and has their gradients. Called from Python one by one, they take longer than they compute.
// x is (B, in), the states are (B, H) and resets (B,), or all are without a batch.
std::tuple<Tensor, Tensor> layer_step(const Tensor& x, const Tensor& weight, const Maybe& bias,
                                      const Maybe& norm_weight, const Maybe& norm_bias, double eps, bool norm,
                                      const Tensor& h, const Tensor& c, const Tensor& u, const Tensor& a,
                                      const Tensor& b, Name activation, Name coupling_activation, bool vectorize,
                                      const Maybe& resets) {
  std::optional<at::AutoDispatchBelowADInplaceOrView> not_differentiated;
  if (!differentiated({x, weight, h, c, u, a, b}) && !any_differentiated(bias, norm_weight, norm_bias)) {
    not_differentiated.emplace();
  }
  const bool batched = x.dim() > 1;
  const auto rows = [&](const Tensor& t) { return batched ? t : t.unsqueeze(0); };
  Tensor z = at::linear(rows(x), weight, bias);
  if (norm) z = at::layer_norm(z, {z.size(-1)}, norm_weight, norm_bias, eps);
  const auto [out, h_n, c_n, saved] =
      scan_operator().call(z.unsqueeze(0), rows(h), rows(c), u, a, b, std::nullopt, activation, coupling_activation,
                           usual_interval, vectorize, resets ? Maybe(resets->reshape({1, -1})) : resets);
  if (batched) return {h_n, c_n};
  return {h_n.squeeze(0), c_n.squeeze(0)};
}

Tensor allocate_like(const Tensor& like, at::IntArrayRef sizes) { return allocate(sizes, like.options()); }

}  // namespace

TORCH_LIBRARY(irevrnn, m) {
  m.def("allocate(Tensor like, int[] sizes) -> Tensor");
  m.def("empty_cache() -> ()", []() { CachingAllocator::of_process().release(); });
  m.def(
      "scan(Tensor z, Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, Tensor? batch_sizes, "
      "str activation, str coupling_activation, int interval, bool vectorize, Tensor? resets=None) "
      "-> (Tensor out, Tensor h_n, Tensor c_n, Tensor saved)");
  m.def(
      "scan_backward(Tensor? grad_out, Tensor? grad_h_n, Tensor? grad_c_n, Tensor out, Tensor saved, "
      "Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, Tensor? batch_sizes, "
      "str activation, str coupling_activation, int interval, bool vectorize, Tensor? resets=None) "
      "-> (Tensor grad_z, Tensor grad_h_0, Tensor grad_c_0, Tensor grad_u, Tensor grad_a, "
      "Tensor grad_b)");
  // No default: before PyTorch 2.15, a gradient of lists of tensors must leave out the arguments that equal their defaults.
  m.def(
      "selective_scan(Tensor z, Tensor h_0, Tensor c_0, Tensor[] turns, Tensor? batch_sizes, int interval, "
      "bool vectorize, Tensor? resets) -> (Tensor out, Tensor h_n, Tensor c_n, Tensor saved)");
  m.def(
      "selective_scan_backward(Tensor? grad_out, Tensor? grad_h_n, Tensor? grad_c_n, Tensor out, Tensor saved, "
      "Tensor h_0, Tensor c_0, Tensor[] turns, Tensor? batch_sizes, int interval, bool vectorize, Tensor? resets=None) "
      "-> Tensor[]");
  m.def("block_output(Tensor h, Tensor weight, Tensor? bias, Tensor? x) -> Tensor");
  m.def(
      "layer_step(Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, Tensor? norm_bias, float eps, bool norm, "
      "Tensor h, Tensor c, Tensor u, Tensor a, Tensor b, str activation, str coupling_activation, bool vectorize, "
      "Tensor? resets=None) -> (Tensor h_n, Tensor c_n)",
      &layer_step);
  // These have no fake tensors: how many words a pass leaves depends on its data, and strategies run chunk by chunk.
  m.def(
      "fixed_scan(Tensor z, Tensor[] states, int steps, Tensor[] weights, str activation, "
      "str coupling_activation, bool record, bool save, bool vectorize, Tensor? resets=None, Tensor? batch_sizes=None) "
      "-> (Tensor out, Tensor[] states, Tensor words, Tensor counts, Tensor saved, int bad_step)");
  m.def("state_hash(Tensor[] states) -> Tensor");
  m.def(
      "fixed_unscan(Tensor z, Tensor[] states, int steps, Tensor words, Tensor starts, Tensor counts, "
      "Tensor[] weights, str activation, str coupling_activation, bool vectorize, Tensor? resets=None, Tensor? batch_sizes=None) "
      "-> (Tensor out, Tensor[] states, Tensor counts_left, Tensor saved)");
  m.def(
      "fixed_gradient(Tensor z, Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, Tensor out, Tensor saved, "
      "Tensor[] states, str activation, str coupling_activation, bool vectorize, Tensor? resets=None, "
      "Tensor? batch_sizes=None) -> (Tensor out, Tensor h_n, Tensor c_n)",
      &fixed_gradient);
}

TORCH_LIBRARY_IMPL(irevrnn, CPU, m) {
  m.impl("allocate", &allocate_like);
  m.impl("scan", &scan_op<LaunchOnCpu>);
  m.impl("scan_backward", &scan_backward_op<LaunchOnCpu>);
  m.impl("selective_scan", &selective_scan_op<LaunchOnCpu>);
  m.impl("selective_scan_backward", &selective_scan_backward_op<LaunchOnCpu>);
  m.impl("block_output", &block_output);
  m.impl("fixed_scan", &fixed_scan_op<LaunchOnCpu>);
  m.impl("fixed_unscan", &fixed_unscan_op<LaunchOnCpu>);
  m.impl("state_hash", &state_hash);
}

TORCH_LIBRARY_IMPL(irevrnn, Autograd, m) {
  m.impl("scan", &differentiable_scan);
  m.impl("block_output", &block_output);
}

}  // namespace irevrnn
