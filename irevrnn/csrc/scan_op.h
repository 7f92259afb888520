// The operators irevrnn::scan and irevrnn::scan_backward for any device: checks, results, and a launch.
#pragma once

#include <array>

#include "op_inputs.h"

namespace irevrnn {

// ops.saved_shape in Python is the same rule.
inline std::vector<int64_t> saved_shape(const Tensor& z, const Layout& layout, int64_t couplings,
                                       int64_t interval) {
  if (interval == nothing_saved) return {0, layout.batch, layout.hidden};
  TORCH_CHECK_VALUE(interval >= 0 && interval <= longest_interval, "interval must be from 0 to ",
                    longest_interval, ", or ", nothing_saved, " if no backward pass follows; got ", interval);
  const bool half = z.scalar_type() != state_dtype(z);  // then h is saved, too
  if (interval == 0) {
    const int64_t values = 2 * couplings + half;
    if (layout.packed()) return {values * z.size(0), layout.hidden};
    return {layout.steps, values, layout.batch, layout.hidden};
  }
  return {(1 + half) * ((layout.steps + interval - 1) / interval - 1), layout.batch, layout.hidden};
}

// Launch(like, vectorize) is made for the device of like; called with a problem that has lanes, it runs the kernels.
// Launch::halves says whether for sequences of 16 bits, too.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor> scan_op(
    const Tensor& z_, const Tensor& h_0_, const Tensor& c_0_, const Tensor& u, const Tensor& a,
    const Tensor& b, const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool vectorize, const std::optional<Tensor>& resets_) {
  const Launch launch(z_, vectorize);
  const Layout layout = Layout::of(z_, h_0_, batch_sizes);
  const Weights weights(z_, u, a, b);
  const std::array<int64_t, 2> state{layout.batch, layout.hidden};
  check_state(z_, h_0_, state, "h_0");
  check_state(z_, c_0_, state, "c_0");
  const Tensor z = z_.contiguous(), h_0 = h_0_.contiguous(), c_0 = c_0_.contiguous();
  const Tensor resets = given_resets(resets_, z);
  Tensor out = allocate(z.sizes(), z.options());
  Tensor h_n = allocate(state, state_options(z)), c_n = allocate(state, state_options(z));
  Tensor saved = allocate(saved_shape(z, layout, a.size(0), interval), state_options(z));
  if (layout.packed() && interval > 0) saved.zero_();  // the rows of sequences that have ended
  for_sequence<Launch::halves>(z, [&](auto zero) {
    using IO = decltype(zero);
    using T = state_type<IO>;
    Forward<T, IO> s;
    fill_sizes<T>(s, layout, weights, parse_activation(activation, "activation"),
                  parse_activation(coupling_activation, "coupling_activation"), interval, resets);
    s.saved_rows = saved.size(0);
    s.h_0 = read<T>(h_0);
    s.c_0 = read<T>(c_0);
    s.z = read<IO>(z);
    s.out = write<IO>(out);
    s.h_n = write<T>(h_n);
    s.c_n = write<T>(c_n);
    s.saved = write<T>(saved);
    if (s.lanes() > 0) launch(s);
  });
  return {out, h_n, c_n, saved};
}

// out is z where that has half the precision of the states.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward_op(
    const std::optional<Tensor>& grad_out_, const std::optional<Tensor>& grad_h_n_,
    const std::optional<Tensor>& grad_c_n_, const Tensor& out_, const Tensor& saved_,
    const Tensor& h_0_, const Tensor& c_0_, const Tensor& u, const Tensor& a, const Tensor& b,
    const std::optional<Tensor>& batch_sizes, c10::string_view activation,
    c10::string_view coupling_activation, int64_t interval, bool vectorize, const std::optional<Tensor>& resets_) {
  const Launch launch(out_, vectorize);
  const Layout layout = Layout::of(out_, h_0_, batch_sizes);
  const Weights weights(out_, u, a, b);
  const std::array<int64_t, 2> state{layout.batch, layout.hidden};
  check_state(out_, h_0_, state, "h_0");
  check_state(out_, c_0_, state, "c_0");
  check_state(out_, saved_, saved_shape(out_, layout, a.size(0), interval), "saved");
  TORCH_CHECK_VALUE(interval != nothing_saved, "interval: the forward pass saved nothing for this one; ",
                    "export a model with memory='store' to train what was exported");
  const Tensor out = out_.contiguous(), saved = saved_.contiguous();
  const Tensor h_0 = h_0_.contiguous(), c_0 = c_0_.contiguous(), resets = given_resets(resets_, out);
  const Tensor grad_out = given(grad_out_, out, out.sizes(), "grad_out", check_like);
  const Tensor grad_h_n = given(grad_h_n_, out, state, "grad_h_n", check_state);
  const Tensor grad_c_n = given(grad_c_n_, out, state, "grad_c_n", check_state);
  const Gradients gradients(out, layout, weights);
  for_sequence<Launch::halves>(out, [&](auto zero) {
    using IO = decltype(zero);
    using T = state_type<IO>;
    Backward<T, IO> s;
    fill_sizes<T>(s, layout, weights, parse_activation(activation, "activation"),
                  parse_activation(coupling_activation, "coupling_activation"), interval, resets);
    s.saved_rows = saved.size(0);
    s.h_0 = read<T>(h_0);
    s.c_0 = read<T>(c_0);
    s.grad_out = read<IO>(grad_out);
    s.grad_h_n = read<T>(grad_h_n);
    s.grad_c_n = read<T>(grad_c_n);
    s.out = read<IO>(out);
    s.saved = read<T>(saved);
    gradients.fill(s);
    if (s.lanes() > 0) launch(s);
  });
  return gradients.all();
}

}  // namespace irevrnn
