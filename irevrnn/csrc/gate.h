// The gated linear unit (Dauphin et al., 2017) with the residual connection around it: y = a * sigmoid(g) + x, where
// the rows of v are [a, g].
#pragma once

#include <cstdint>

namespace irevrnn {

struct Gate {
  int64_t width;
  const float *v, *x;  // (N, 2 * width), (N, width); x may be null
  float* y;            // (N, width)
};

struct GateBackward {
  int64_t width;
  const float *v, *grad_y;
  float* grad_v;
};

// Rows begin to end.
void gate_vector(const Gate& s, int64_t begin, int64_t end);
void gate_vector(const GateBackward& s, int64_t begin, int64_t end);

}  // namespace irevrnn
