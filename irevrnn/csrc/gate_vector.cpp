// The gate in vectors.
#include "gate.h"

#include "activations.h"

namespace irevrnn {
namespace {

// Some numbers of a row that lie side by side: a vector, or at its end fewer.
template <bool cut>
struct Numbers {
  int64_t count;
  IREVRNN_INLINE Vector load(const float* from) const {
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

}  // namespace

void gate_vector(const Gate& s, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float *a = s.v + 2 * row * s.width, *x = s.x ? s.x + row * s.width : nullptr;
    float* y = s.y + row * s.width;
    each_number(s.width, [&](auto numbers, int64_t i) {
      const Vector open = sigmoid_single(numbers.load(a + s.width + i));
      const Vector product = numbers.load(a + i) * open;
      numbers.store(y + i, x ? product + numbers.load(x + i) : product);
    });
  }
}

void gate_vector(const GateBackward& s, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float *a = s.v + 2 * row * s.width, *grad_y = s.grad_y + row * s.width;
    float* grad_a = s.grad_v + 2 * row * s.width;
    each_number(s.width, [&](auto numbers, int64_t i) {
      const Vector open = sigmoid_single(numbers.load(a + s.width + i));
      const Vector product = numbers.load(grad_y + i) * open;
      numbers.store(grad_a + i, product);
      numbers.store(grad_a + s.width + i,
                    product * numbers.load(a + i) * (broadcast<Vector>(1.0f) - open));
    });
  }
}

}  // namespace irevrnn
