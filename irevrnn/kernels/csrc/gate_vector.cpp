// The gate in vectors.
#include "gate.h"

#include <algorithm>
#include <bit>

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

// As much as a decay stores, in units; decays that are too small store all of a number (longest_shift in decay.h).
constexpr int32_t bits_of_one = 127 << 23, all_units = 29 * units_of_bit, too_many_units = 30 * units_of_bit;

// By how much more a decay would store if it were larger; 0 for those that are too small.
IREVRNN_INLINE Vector stored_slope(Vector decay) {
  const Ints bits = (Ints)decay, too_small = all_lanes(bits_of_one - too_many_units);
  const Ints power = minus(all_lanes(2 * bits_of_one), minus(bits, all_lanes(1)) & all_lanes(~(units_of_bit - 1)));
  return (Vector)choose(less(too_small, bits), (Ints)(-(Vector)power), Ints{});
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

void choose_vector(const Choices& c, int64_t begin, int64_t end) {
  const Vector zero{}, one = broadcast<Vector>(1.0f), two = broadcast<Vector>(2.0f);
  for (int64_t row = begin; row < end; ++row) {
    each_number(0, c.width, [&](auto numbers, int64_t i) {
      const int64_t at = row * c.width + i;
      if (c.read) {  // in this order, a NaN stays a NaN
        const Vector open = larger(zero, smaller(two, one + numbers.load(c.read, at)));
        numbers.store(c.z + at, numbers.load(c.z, at) * open);
      }
      if (c.turn) numbers.store(c.turn + at, numbers.load(c.angle, i) * (two * sigmoid(numbers.load(c.turn, at))));
      if (c.keep) numbers.store(c.keep + at, sigmoid(numbers.load(c.keep, at)));
    });
  }
}

void choose_backward_vector(const ChoicesGradient& c, int64_t begin, int64_t end) {
  const Vector zero{}, one = broadcast<Vector>(1.0f), two = broadcast<Vector>(2.0f), of_bits = broadcast<Vector>(c.of_bits);
  for (int64_t first = begin; first < end; first += rows_together) {
    const int64_t past_last = std::min(end, first + rows_together);
    each_number(0, c.width, [&](auto numbers, int64_t i) {
      const Vector angle = numbers.load(c.angle, i);
      Vector sum{};
      for (int64_t at = first * c.width + i; at < past_last * c.width; at += c.width) {
        Vector of_z = numbers.load(c.of_z, at);
        if (c.read) {
          const Vector open = one + numbers.load(c.read, at), of_read = of_z * numbers.load(c.z, at);
          numbers.store(c.read + at, (open < zero) | (open > two) ? zero : of_read);
          of_z = of_z * larger(zero, smaller(two, open));
        }
        numbers.store(c.z + at, of_z);
        if (c.turn) {
          const Vector share = sigmoid(numbers.load(c.turn, at)), of_angle = two * share * numbers.load(c.of_turn, at);
          numbers.store(c.turn + at, of_angle * angle * (one - share));
          sum += of_angle;
        }
        if (c.keep) {
          const Vector keep = numbers.load(c.keep, at), of_keep = numbers.load(c.of_keep, at);
          numbers.store(c.grad_keep + at, fma(of_bits, stored_slope(keep), of_keep) * keep * (one - keep));
        }
      }
      if (c.grad_angle) numbers.store(c.grad_angle + i, numbers.load(c.grad_angle, i) + sum);
    });
  }
}

int64_t stored_units_vector(const float* decay, int64_t count) {
  int64_t units = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t own = bits_of_one - std::bit_cast<int32_t>(decay[i]);
    units += own < too_many_units ? own : all_units;
  }
  return units;
}

}  // namespace irevrnn
