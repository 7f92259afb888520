// The nonlinearities behind a recurrence: GELU (Hendrycks and Gimpel, 2016), and the gated linear unit (Dauphin et al.,
// 2017) with the residual connection around it, y = a * sigmoid(g) + x, where the rows of v, with a bias added, are [a, g].
#pragma once

#include <cstdint>

namespace irevrnn {

struct Gate {
  int64_t width;
  const float *v, *bias, *x;  // (N, 2 * width), (2 * width), (N, width); bias and x may be null
  float* y;                   // (N, width)
};

// grad_bias is the sum of grad_v over the rows of one call, to be added to.
struct GateBackward {
  int64_t width;
  const float *v, *bias, *grad_y;
  float *grad_v, *grad_bias;
};

// Numbers begin to end. In the gradient, y holds that of the result and becomes that of x.
void gelu_vector(const float* x, float* y, int64_t begin, int64_t end);
void gelu_backward_vector(const float* x, float* y, int64_t begin, int64_t end);

// Rows begin to end.
void gate_vector(const Gate& s, int64_t begin, int64_t end);
void gate_vector(const GateBackward& s, int64_t begin, int64_t end);

}  // namespace irevrnn
