// The nonlinearities behind a recurrence: GELU (Hendrycks and Gimpel, 2016), and the gated linear unit (Dauphin et al.,
// 2017) with the residual connection around it, y = a * sigmoid(g) + x, where the rows of v, with a bias added, are [a, g].
#pragma once

#include <cstdint>

namespace irevrnn {

// Numbers begin to end. In the gradient, y holds that of the result and becomes that of x.
void gelu_vector(const float* x, float* y, int64_t begin, int64_t end);
void gelu_backward_vector(const float* x, float* y, int64_t begin, int64_t end);

struct Gate {
  int64_t width;
  const float *v, *bias;  // (N, 2 * width), (2 * width); bias may be null, as may x (N, width) below
};

// Rows begin to end. The sum of grad_v over them is added to grad_bias.
void gate_vector(const Gate& s, const float* x, float* y, int64_t begin, int64_t end);
void gate_backward_vector(const Gate& s, const float* grad_y, float* grad_v, float* grad_bias, int64_t begin, int64_t end);

}  // namespace irevrnn
