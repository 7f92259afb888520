// The nonlinearities around a recurrence: in front what the input chooses; behind GELU (Hendrycks and Gimpel, 2016), and the
// gated linear unit (Dauphin et al., 2017) with the residual connection, y = a * sigmoid(g) + x, where the rows of v, with a
// bias added, are [a, g].
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

// What the input of a block chooses: z is multiplied by clamp(1 + read, 0, 2), turn becomes angle * 2 sigmoid(turn), and keep
// sigmoid(keep). All but angle (width) are projections, (N, width); those that are null are left out.
struct Choices {
  int64_t width;
  float* z;
  const float *read, *angle;
  float *turn, *keep;
};
void choose_vector(const Choices& c, int64_t begin, int64_t end);

// Its gradient, given those of z, of angles, of decays, and of each bit that a decay stores. z, read and turn are the
// projections again, in whose place their gradients come; keep is the decay, whose projection has grad_keep. The sum of the
// gradients of the angle is added to grad_angle.
struct ChoicesGradient {
  int64_t width;
  const float *angle, *keep, *of_z, *of_turn, *of_keep;
  float of_bits;
  float *z, *read, *turn, *grad_keep, *grad_angle;
};
void choose_backward_vector(const ChoicesGradient& c, int64_t begin, int64_t end);

// The bits that decays from 0 to 1 store on average, k + 2 m / 2^32 each (decay.h), in units of 2^-23. A float between powers
// of two has just that in its exponent and its fraction.
constexpr int32_t units_of_bit = 1 << 23;
int64_t stored_units_vector(const float* decay, int64_t count);

}  // namespace irevrnn
