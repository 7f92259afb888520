// The nonlinearities behind a recurrence: GELU (Hendrycks and Gimpel, 2016), and the gated linear unit (Dauphin et al.,
// 2017) with the residual connection around it, y = a * sigmoid(g) + x, where the rows of v, with a bias added, are [a, g].
#pragma once

#include <cstdint>

namespace irevrnn {

// Numbers begin to end. In the gradient, y holds that of the result and becomes that of x.
void gelu_vector(const float* x, float* y, int64_t begin, int64_t end);
void gelu_backward_vector(const float* x, float* y, int64_t begin, int64_t end);

// Rows begin to end. v is (N, 2 * width), bias (2 * width), x (N, width); bias and x may be null.
void gate_vector(int64_t width, const float* v, const float* bias, const float* x, float* y, int64_t begin, int64_t end);
// The sum of grad_v over the rows is added to grad_bias.
void gate_backward_vector(int64_t width, const float* v, const float* bias, const float* grad_y, float* grad_v,
                          float* grad_bias, int64_t begin, int64_t end);

}  // namespace irevrnn
