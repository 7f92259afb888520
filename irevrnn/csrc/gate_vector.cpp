// The gate in vectors.
#include "gate.h"

#include <algorithm>

#include "activations.h"

namespace irevrnn {
namespace {

// Some numbers of a row that lie side by side: a vector, or at its end fewer.
template <bool cut>
struct Numbers {
  int64_t count;
  IREVRNN_INLINE Vector load(const float* from) const {
    if (!from) return Vector{};
    if constexpr (!cut) return load_vector(from);
    Vector x{};
    memcpy(&x, from, count * sizeof(float));
    return x;
  }
  IREVRNN_INLINE void store(float* to, const Vector& x) const {
    memcpy(to, &x, cut ? count * sizeof(float) : sizeof x);
  }
};

// Calls fn(numbers, i) for all of a row, i being the first.
template <class Fn>
IREVRNN_INLINE void each_number(int64_t width, const Fn& fn) {
  int64_t i = 0;
  for (; i + vector_lanes <= width; i += vector_lanes) fn(Numbers<false>{vector_lanes}, i);
  if (i < width) fn(Numbers<true>{width - i}, i);
}

IREVRNN_INLINE const float* at(const float* from, int64_t i) { return from ? from + i : nullptr; }

// Rows whose sums stay in registers, while the numbers of all of them stay in the first cache.
constexpr int64_t rows_together = 16;

}  // namespace

void gate_vector(const Gate& s, int64_t begin, int64_t end) {
  const int64_t width = s.width;
  for (int64_t row = begin; row < end; ++row) {
    const float *v = s.v + 2 * row * width, *x = at(s.x, row * width);
    float* y = s.y + row * width;
    each_number(width, [&](auto numbers, int64_t i) {
      const Vector a = numbers.load(v + i) + numbers.load(at(s.bias, i));
      const Vector g = numbers.load(v + width + i) + numbers.load(at(s.bias, width + i));
      numbers.store(y + i, a * sigmoid_single(g) + numbers.load(at(x, i)));
    });
  }
}

void gate_vector(const GateBackward& s, int64_t begin, int64_t end) {
  const int64_t width = s.width;
  for (int64_t first = begin; first < end; first += rows_together) {
    const int64_t past_last = std::min(end, first + rows_together);
    each_number(width, [&](auto numbers, int64_t i) {
      const Vector bias_a = numbers.load(at(s.bias, i)), bias_g = numbers.load(at(s.bias, width + i));
      Vector sum_a{}, sum_g{};
      for (int64_t row = first; row < past_last; ++row) {
        const float* v = s.v + 2 * row * width;
        const Vector open = sigmoid_single(numbers.load(v + width + i) + bias_g);
        const Vector grad_a = numbers.load(s.grad_y + row * width + i) * open;
        const Vector grad_g = grad_a * (numbers.load(v + i) + bias_a) * (broadcast<Vector>(1.0f) - open);
        numbers.store(s.grad_v + 2 * row * width + i, grad_a);
        numbers.store(s.grad_v + (2 * row + 1) * width + i, grad_g);
        sum_a += grad_a;
        sum_g += grad_g;
      }
      numbers.store(s.grad_bias + i, numbers.load(s.grad_bias + i) + sum_a);
      numbers.store(s.grad_bias + width + i, numbers.load(s.grad_bias + width + i) + sum_g);
    });
  }
}

}  // namespace irevrnn
