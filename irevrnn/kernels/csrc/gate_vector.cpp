// The gate in vectors.
#include "gate.h"

#include <algorithm>

#include "activations.h"
#include "numbers.h"

namespace irevrnn {
namespace {

// The distribution and the density of the normal distribution at x. The first is 1 - density * polynomial(1 / (1 + p |x|))
// (Abramowitz and Stegun, 1964, 7.1.26), with an error of 7.5e-8.
struct Normal {
  Vector distribution, density;
};

IREVRNN_INLINE Normal normal_at(Vector x) {
  const Vector one = broadcast<Vector>(1.0f), size = absolute(x);
  const Reduced<Vector> y = reduce(larger(broadcast<Vector>(-43.5f), broadcast<Vector>(-0.25f) * x * x));
  const Vector exp = fma(y.power + y.power, half_exp_minus_one(y.r), y.power);  // exp(-x^2 / 2)
  const Vector k = one / fma(broadcast<Vector>(0.231641888f), size, one);
  Vector tail = fma(broadcast<Vector>(0.5307027145f), k, broadcast<Vector>(-0.7265760135f));
  tail = fma(tail, k, broadcast<Vector>(0.7107068705f));
  tail = fma(tail, k, broadcast<Vector>(-0.142248368f));
  tail = fma(tail, k, broadcast<Vector>(0.127414796f)) * k * exp;
  const Vector half = broadcast<Vector>(0.5f);
  return {half + copy_sign(half - tail, x), broadcast<Vector>(0.3989422804f) * exp};
}

// Rows whose sums stay in registers, while the numbers of all of them stay in the first cache.
constexpr int64_t rows_together = 16;

}  // namespace

void gelu_vector(const float* x, float* y, int64_t begin, int64_t end) {
  each_number(begin, end, [&](auto numbers, int64_t i) {
    const Vector value = numbers.load(x, i);
    numbers.store(y + i, value * normal_at(value).distribution);
  });
}

void gelu_backward_vector(const float* x, float* y, int64_t begin, int64_t end) {
  each_number(begin, end, [&](auto numbers, int64_t i) {
    const Vector value = numbers.load(x, i);
    const Normal normal = normal_at(value);
    numbers.store(y + i, numbers.load(y, i) * fma(value, normal.density, normal.distribution));
  });
}

void gate_vector(int64_t width, const float* v, const float* bias, const float* x, float* y, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    each_number(0, width, [&](auto numbers, int64_t i) {
      const Vector a = numbers.load(v, 2 * row * width + i) + numbers.load(bias, i);
      const Vector g = numbers.load(v, (2 * row + 1) * width + i) + numbers.load(bias, width + i);
      numbers.store(y + row * width + i, a * sigmoid(g) + numbers.load(x, row * width + i));
    });
  }
}

void gate_backward_vector(int64_t width, const float* v, const float* bias, const float* grad_y, float* grad_v,
                          float* grad_bias, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += rows_together) {
    const int64_t past_last = std::min(end, first + rows_together);
    each_number(0, width, [&](auto numbers, int64_t i) {
      const Vector bias_a = numbers.load(bias, i), bias_g = numbers.load(bias, width + i);
      Vector sum_a{}, sum_g{};
      for (int64_t row = first; row < past_last; ++row) {
        const int64_t a = 2 * row * width + i, g = a + width;
        const Vector open = sigmoid(numbers.load(v, g) + bias_g);
        const Vector grad_a = numbers.load(grad_y, row * width + i) * open;
        const Vector grad_g = grad_a * (numbers.load(v, a) + bias_a) * (broadcast<Vector>(1.0f) - open);
        numbers.store(grad_v + a, grad_a);
        numbers.store(grad_v + g, grad_g);
        sum_a += grad_a;
        sum_g += grad_g;
      }
      numbers.store(grad_bias + i, numbers.load(grad_bias, i) + sum_a);
      numbers.store(grad_bias + width + i, numbers.load(grad_bias, width + i) + sum_g);
    });
  }
}

}  // namespace irevrnn
