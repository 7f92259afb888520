// The operators irevrnn::scan, irevrnn::selective_scan and their backward passes for any device: checks, results, and a launch.
#pragma once

#include "op_inputs.h"

namespace irevrnn {

// A pass: out, h_n, c_n and what is saved. Launch(like, vectorize) is made for the device of like; called with a problem that
// has lanes, it runs the kernels.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward_pass(const Tensor& z_, const Tensor& h_0_, const Tensor& c_0_,
                                                        const PassInputs& x, bool vectorize) {
  const Launch launch(z_, vectorize);
  const Tensor z = z_.contiguous(), h_0 = checked(z, h_0_, {x.batch, x.hidden}, "h_0");
  const Tensor c_0 = checked(z, c_0_, h_0.sizes(), "c_0"), out = allocate(z.sizes(), z.options());
  const Tensor h_n = allocate(h_0.sizes(), z.options()), c_n = allocate(h_0.sizes(), z.options());
  const Tensor saved = allocate(x.saved_shape(z), z.options());
  if (x.packed() && x.interval > 0) saved.zero_();  // the rows of sequences that have ended
  for_sequence(z, [&](auto zero) {
    using T = decltype(zero);
    Forward<T> s;
    x.fill<T>(s);
    s.h_0 = read<T>(h_0);
    s.c_0 = read<T>(c_0);
    s.z = read<T>(z);
    s.out = write<T>(out);
    s.h_n = write<T>(h_n);
    s.c_n = write<T>(c_n);
    s.saved = write<T>(saved);
    if (s.lanes() > 0) launch(s);
  });
  return {out, h_n, c_n, saved};
}

// The gradients of z, h_0, c_0, and of the weights.
template <class Launch>
std::vector<Tensor> backward_pass(const Maybe& grad_out_, const Maybe& grad_h_n_, const Maybe& grad_c_n_,
                                  const Tensor& out_, const Tensor& saved_, const Tensor& h_0_, const Tensor& c_0_,
                                  const PassInputs& x, bool vectorize) {
  TORCH_CHECK_VALUE(x.interval != nothing_saved, "interval: the forward pass saved nothing for this one; ",
                    "export a model with memory='store' to train what was exported");
  const Launch launch(out_, vectorize);
  const at::ScalarType dtype = out_.scalar_type();
  const Tensor out = out_.contiguous(), saved = checked(out, saved_, x.saved_shape(out), "saved");
  const Tensor h_0 = checked(out, h_0_, {x.batch, x.hidden}, "h_0"), c_0 = checked(out, c_0_, h_0.sizes(), "c_0");
  const Tensor grad_out = checked(out, grad_out_, out.sizes(), dtype, "grad_out");
  const Tensor grad_h_n = checked(out, grad_h_n_, h_0.sizes(), dtype, "grad_h_n");
  const Tensor grad_c_n = checked(out, grad_c_n_, h_0.sizes(), dtype, "grad_c_n");
  std::vector<Tensor> gradients;
  for (const Tensor& t : {out, h_0, c_0}) gradients.push_back(allocate(t.sizes(), t.options()));
  for (size_t i = 0; i < x.weights.size(); ++i) {
    const Tensor& t = x.weights[i];
    gradients.push_back(allocate(t.sizes(), t.options()));
    if (x.selective() && !x.of_steps[i]) gradients.back().zero_();
  }
  for_sequence(out, [&](auto zero) {
    using T = decltype(zero);
    Backward<T> s;
    x.fill<T>(s);
    s.h_0 = read<T>(h_0);
    s.c_0 = read<T>(c_0);
    s.grad_out = read<T>(grad_out);
    s.grad_h_n = read<T>(grad_h_n);
    s.grad_c_n = read<T>(grad_c_n);
    s.out = read<T>(out);
    s.saved = read<T>(saved);
    s.grad_z = write<T>(gradients[0]);
    s.grad_h_0 = write<T>(gradients[1]);
    s.grad_c_0 = write<T>(gradients[2]);
    x.fill_gradients(s, {gradients.begin() + 3, gradients.end()});
    if (s.lanes() > 0) return launch(s);
    for (size_t i = 3; i < gradients.size(); ++i) gradients[i].zero_();
  });
  return gradients;
}

template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor> scan_op(
    const Tensor& z, const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b,
    const Maybe& batch_sizes, Name activation, Name coupling_activation, int64_t interval, bool vectorize,
    const Maybe& resets) {
  const PassInputs x(z, h_0, {u, a, b}, batch_sizes, activation, coupling_activation, interval, resets);
  return forward_pass<Launch>(z, h_0, c_0, x, vectorize);
}

template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward_op(
    const Maybe& grad_out, const Maybe& grad_h_n, const Maybe& grad_c_n, const Tensor& out, const Tensor& saved,
    const Tensor& h_0, const Tensor& c_0, const Tensor& u, const Tensor& a, const Tensor& b, const Maybe& batch_sizes,
    Name activation, Name coupling_activation, int64_t interval, bool vectorize, const Maybe& resets) {
  const PassInputs x(out, h_0, {u, a, b}, batch_sizes, activation, coupling_activation, interval, resets);
  const auto g = backward_pass<Launch>(grad_out, grad_h_n, grad_c_n, out, saved, h_0, c_0, x, vectorize);
  return {g[0], g[1], g[2], g[3], g[4], g[5]};
}

template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor> selective_scan_op(
    const Tensor& z, const Tensor& h_0, const Tensor& c_0, at::TensorList turns, const Maybe& batch_sizes, int64_t interval,
    bool vectorize, const Maybe& resets) {
  const PassInputs x(z, h_0, turns, batch_sizes, "identity", "identity", interval, resets);
  return forward_pass<Launch>(z, h_0, c_0, x, vectorize);
}

template <class Launch>
std::vector<Tensor> selective_scan_backward_op(
    const Maybe& grad_out, const Maybe& grad_h_n, const Maybe& grad_c_n, const Tensor& out, const Tensor& saved,
    const Tensor& h_0, const Tensor& c_0, at::TensorList turns, const Maybe& batch_sizes, int64_t interval, bool vectorize,
    const Maybe& resets) {
  const PassInputs x(out, h_0, turns, batch_sizes, "identity", "identity", interval, resets);
  return backward_pass<Launch>(grad_out, grad_h_n, grad_c_n, out, saved, h_0, c_0, x, vectorize);
}

}  // namespace irevrnn
