// The operators irevrnn::scan and irevrnn::scan_backward for any device: checks, results, and a launch.
#pragma once

#include "op_inputs.h"

namespace irevrnn {

// Launch(like, vectorize) is made for the device of like; called with a problem that has lanes, it runs the kernels.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor> scan_op(
    const Tensor& z_, const Tensor& h_0_, const Tensor& c_0_, const Tensor& u, const Tensor& a, const Tensor& b,
    const Maybe& batch_sizes, Name activation, Name coupling_activation, int64_t interval, bool vectorize,
    const Maybe& resets) {
  const Launch launch(z_, vectorize);
  const PassInputs x(z_, h_0_, u, a, b, batch_sizes, activation, coupling_activation, interval, resets);
  const Tensor z = z_.contiguous(), h_0 = checked(z, h_0_, {x.batch, x.hidden}, "h_0");
  const Tensor c_0 = checked(z, c_0_, h_0.sizes(), "c_0"), out = allocate(z.sizes(), z.options());
  const Tensor h_n = allocate(h_0.sizes(), z.options()), c_n = allocate(h_0.sizes(), z.options());
  const Tensor saved = allocate(x.saved_shape(z), z.options());
  if (x.packed() && interval > 0) saved.zero_();  // the rows of sequences that have ended
  for_sequence(z, [&](auto zero) {
    using T = decltype(zero);
    Forward<T> s;
    x.fill<T>(s);
    s.saved_rows = saved.size(0);
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

template <class Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> scan_backward_op(
    const Maybe& grad_out_, const Maybe& grad_h_n_, const Maybe& grad_c_n_, const Tensor& out_, const Tensor& saved_,
    const Tensor& h_0_, const Tensor& c_0_, const Tensor& u, const Tensor& a, const Tensor& b, const Maybe& batch_sizes,
    Name activation, Name coupling_activation, int64_t interval, bool vectorize, const Maybe& resets) {
  TORCH_CHECK_VALUE(interval != nothing_saved, "interval: the forward pass saved nothing for this one; ",
                    "export a model with memory='store' to train what was exported");
  const Launch launch(out_, vectorize);
  const PassInputs x(out_, h_0_, u, a, b, batch_sizes, activation, coupling_activation, interval, resets);
  const at::ScalarType dtype = out_.scalar_type();
  const Tensor out = out_.contiguous(), saved = checked(out, saved_, x.saved_shape(out), "saved");
  const Tensor h_0 = checked(out, h_0_, {x.batch, x.hidden}, "h_0"), c_0 = checked(out, c_0_, h_0.sizes(), "c_0");
  const Tensor grad_out = checked(out, grad_out_, out.sizes(), dtype, "grad_out");
  const Tensor grad_h_n = checked(out, grad_h_n_, h_0.sizes(), dtype, "grad_h_n");
  const Tensor grad_c_n = checked(out, grad_c_n_, h_0.sizes(), dtype, "grad_c_n");
  const auto gradient_of = [](const Tensor& x) { return allocate(x.sizes(), x.options()); };
  const Tensor grad_z = gradient_of(out), grad_h_0 = gradient_of(h_0), grad_c_0 = gradient_of(c_0);
  const Tensor grad_u = gradient_of(x.u), grad_a = gradient_of(x.a), grad_b = gradient_of(x.b);
  for_sequence(out, [&](auto zero) {
    using T = decltype(zero);
    Backward<T> s;
    x.fill<T>(s);
    s.saved_rows = saved.size(0);
    s.h_0 = read<T>(h_0);
    s.c_0 = read<T>(c_0);
    s.grad_out = read<T>(grad_out);
    s.grad_h_n = read<T>(grad_h_n);
    s.grad_c_n = read<T>(grad_c_n);
    s.out = read<T>(out);
    s.saved = read<T>(saved);
    s.grad_z = write<T>(grad_z);
    s.grad_h_0 = write<T>(grad_h_0);
    s.grad_c_0 = write<T>(grad_c_0);
    s.grad_u = write<T>(grad_u);
    s.grad_a = write<T>(grad_a);
    s.grad_b = write<T>(grad_b);
    if (s.lanes() > 0) return launch(s);
    for (const Tensor& sum : {grad_u, grad_a, grad_b}) sum.zero_();
  });
  return {grad_z, grad_h_0, grad_c_0, grad_u, grad_a, grad_b};
}

}  // namespace irevrnn
