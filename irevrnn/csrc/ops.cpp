// The operators irevrnn::scan and irevrnn::scan_backward: schema, checks, and their CPU kernels.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <array>
#include <optional>
#include <tuple>

#include "fresh.h"
#include "op_inputs.h"

namespace irevrnn {
namespace {

template <class T, class Problem>
void launch(const Problem& s, bool vectorize) {
  if (s.lanes() == 0) return;
  if constexpr (std::is_same_v<T, float>) {
    if (vectorize) return scan_vector(s);
  }
  scan_scalar<T>(s);
}

// ops.held_shape in Python is the same rule.
std::vector<int64_t> held_shape(const Tensor& z, const Layout& layout, int64_t couplings, int64_t interval) {
  if (interval == nothing_held) return {0, layout.batch, layout.hidden};
  TORCH_CHECK_VALUE(interval >= 0 && interval <= longest_interval, "interval must be from 0 to ",
                    longest_interval, ", or ", nothing_held, " if no backward pass follows; got ", interval);
  if (interval == 0) {
    if (layout.packed()) return {2 * couplings * z.size(0), layout.hidden};
    return {layout.steps, 2 * couplings, layout.batch, layout.hidden};
  }
  return {(layout.steps + interval - 1) / interval - 1, layout.batch, layout.hidden};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> scan(
    const Tensor& z_, const Tensor& h_0_, const Tensor& c_0_, const Tensor& u, const Tensor& a,
    const Tensor& b, const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool vectorize) {
  const Layout layout = Layout::of(z_, h_0_, batch_sizes);
  const Weights weights(z_, u, a, b);
  const std::array<int64_t, 2> state{layout.batch, layout.hidden};
  check_like(z_, h_0_, state, "h_0");
  check_like(z_, c_0_, state, "c_0");
  const Tensor z = z_.contiguous(), h_0 = h_0_.contiguous(), c_0 = c_0_.contiguous();
  Tensor out = fresh(z.sizes(), z.options());
  Tensor h_n = fresh(state, z.options()), c_n = fresh(state, z.options());
  Tensor held = fresh(held_shape(z, layout, a.size(0), interval), z.options());
  if (layout.packed() && interval > 0) held.zero_();  // the rows of sequences that have ended
  for_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    Forward<T> s;
    fill_sizes<T>(s, layout, weights, activation, coupling_activation, interval);
    s.held_rows = held.size(0);
    s.h_0 = h_0.const_data_ptr<T>();
    s.c_0 = c_0.const_data_ptr<T>();
    s.z = z.const_data_ptr<T>();
    s.out = out.mutable_data_ptr<T>();
    s.h_n = h_n.mutable_data_ptr<T>();
    s.c_n = c_n.mutable_data_ptr<T>();
    s.held = held.mutable_data_ptr<T>();
    launch<T>(s, vectorize);
  });
  return {out, h_n, c_n, held};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward(
    const std::optional<Tensor>& grad_out_, const std::optional<Tensor>& grad_h_n_,
    const std::optional<Tensor>& grad_c_n_, const Tensor& out_, const Tensor& held_,
    const Tensor& h_0_, const Tensor& c_0_, const Tensor& u, const Tensor& a, const Tensor& b,
    const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool vectorize) {
  const Layout layout = Layout::of(out_, h_0_, batch_sizes);
  const Weights weights(out_, u, a, b);
  const std::array<int64_t, 2> state{layout.batch, layout.hidden};
  check_like(out_, h_0_, state, "h_0");
  check_like(out_, c_0_, state, "c_0");
  check_like(out_, held_, held_shape(out_, layout, a.size(0), interval), "held");
  TORCH_CHECK_VALUE(interval != nothing_held, "interval: the forward pass held nothing for this one; ",
                    "export a model with memory='store' to train what was exported");
  const Tensor out = out_.contiguous(), held = held_.contiguous();
  const Tensor h_0 = h_0_.contiguous(), c_0 = c_0_.contiguous();
  const Tensor grad_out = given(grad_out_, out, out.sizes(), "grad_out");
  const Tensor grad_h_n = given(grad_h_n_, out, state, "grad_h_n");
  const Tensor grad_c_n = given(grad_c_n_, out, state, "grad_c_n");
  const Gradients gradients(out, layout, weights);
  for_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    Backward<T> s;
    fill_sizes<T>(s, layout, weights, activation, coupling_activation, interval);
    s.held_rows = held.size(0);
    s.h_0 = h_0.const_data_ptr<T>();
    s.c_0 = c_0.const_data_ptr<T>();
    s.grad_out = data_or_null<T>(grad_out);
    s.grad_h_n = data_or_null<T>(grad_h_n);
    s.grad_c_n = data_or_null<T>(grad_c_n);
    s.out = out.const_data_ptr<T>();
    s.held = held.const_data_ptr<T>();
    gradients.fill(s);
    launch<T>(s, vectorize);
  });
  return gradients.all();
}

}  // namespace

TORCH_LIBRARY(irevrnn, m) {
  m.def(
      "scan(Tensor z, Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, Tensor? batch_sizes, "
      "str activation, str coupling_activation, int interval, bool vectorize) "
      "-> (Tensor out, Tensor h_n, Tensor c_n, Tensor held)");
  m.def(
      "scan_backward(Tensor? grad_out, Tensor? grad_h_n, Tensor? grad_c_n, Tensor out, Tensor held, "
      "Tensor h_0, Tensor c_0, Tensor u, Tensor a, Tensor b, Tensor? batch_sizes, "
      "str activation, str coupling_activation, int interval, bool vectorize) "
      "-> (Tensor grad_z, Tensor grad_h_0, Tensor grad_c_0, Tensor grad_u, Tensor grad_a, "
      "Tensor grad_b)");
}

TORCH_LIBRARY_IMPL(irevrnn, CPU, m) {
  m.impl("scan", &scan);
  m.impl("scan_backward", &scan_backward);
}

}  // namespace irevrnn
