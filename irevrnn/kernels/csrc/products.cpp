// Matrix products and layer norms in vectors.
#include "products.h"

#include <algorithm>
#include <utility>

#include "numbers.h"

namespace irevrnn {
namespace {

// A tile of results stays in registers: there are 32, or else 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_rows = 6, tile_vectors = 4;
#else
constexpr int tile_rows = 6, tile_vectors = 2;
#endif
// Steps of k that are summed before they are added to what there is: rounding errors hardly grow with their number. Their rows
// of b stay in the caches for all rows of a.
constexpr int64_t depth_together = 256;

// A tile from row i and column j on, for k from begin to end: `rows` by `vectors`, the last of which may be cut.
template <int rows, int vectors, bool cut>
IREVRNN_INLINE void multiply_tile(const MatrixProduct& p, int64_t i, int64_t j, int64_t begin, int64_t end) {
  const Numbers<cut> numbers{cut ? p.columns - j : vector_lanes};
  Vector sums[rows][vectors]{};
  for (int64_t k = begin; k < end; ++k) {
    Vector of_b[vectors];
    for (int v = 0; v < vectors; ++v) of_b[v] = numbers.load(p.b + k * p.columns, j + v * vector_lanes);
    for (int r = 0; r < rows; ++r) {
      const Vector of_a = broadcast<Vector>(p.a[(i + r) * p.a_row + k * p.a_column]);
      for (int v = 0; v < vectors; ++v) sums[r][v] = fma(of_a, of_b[v], sums[r][v]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    float* to = p.to + (i + r) * p.columns;
    const float* from = begin > 0 ? to : p.from ? p.from + (i + r) * p.from_step : nullptr;
    for (int v = 0; v < vectors; ++v) {
      const int64_t at = j + v * vector_lanes;
      numbers.store(to + at, from ? numbers.load(from, at) + sums[r][v] : sums[r][v]);
    }
  }
}

template <int vectors, bool cut>
void multiply_columns(const MatrixProduct& p, int64_t j, int64_t first, int64_t past_last, int64_t begin, int64_t end) {
  int64_t i = first;
  for (; i + tile_rows <= past_last; i += tile_rows) multiply_tile<tile_rows, vectors, cut>(p, i, j, begin, end);
  switch (past_last - i) {
    case 5: return multiply_tile<5, vectors, cut>(p, i, j, begin, end);
    case 4: return multiply_tile<4, vectors, cut>(p, i, j, begin, end);
    case 3: return multiply_tile<3, vectors, cut>(p, i, j, begin, end);
    case 2: return multiply_tile<2, vectors, cut>(p, i, j, begin, end);
    case 1: return multiply_tile<1, vectors, cut>(p, i, j, begin, end);
  }
}

// Sixteen sums, of every sixteenth number each, whatever the width of vectors.
struct Sixteen {
  static constexpr int lanes = 16, vectors = lanes / vector_lanes;
  Vector parts[vectors]{};

  // The sum of all, by a fixed tree.
  float total() const {
    float x[lanes];
    memcpy(x, parts, sizeof x);
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) x[i] += x[i + half];
    }
    return x[0];
  }
};

// Calls fn(numbers, i, v) for the numbers of a row from i on, which belong to part v of Sixteen.
template <class Fn>
IREVRNN_INLINE void each_of_row(int64_t width, const Fn& fn) {
  int64_t i = 0;
  for (; i + Sixteen::lanes <= width; i += Sixteen::lanes) {
    for (int v = 0; v < Sixteen::vectors; ++v) fn(Numbers<false>{vector_lanes}, i + v * vector_lanes, v);
  }
  for (int v = 0; i < width; i += vector_lanes, ++v) {
    fn(Numbers<true>{std::min<int64_t>(width - i, vector_lanes)}, i, v);
  }
}

// Numbers of x and y in turn, from lane `first` of each on.
template <int first, int... lanes>
IREVRNN_INLINE Vector in_turn(const Vector& x, const Vector& y, std::integer_sequence<int, lanes...>) {
#if defined(__clang__)
  return __builtin_shufflevector(x, y, (first + lanes / 2 + lanes % 2 * vector_lanes)...);
#else
  return __builtin_shuffle(x, y, Ints{(first + lanes / 2 + lanes % 2 * vector_lanes)...});
#endif
}

// Transposes a square, a vector a row: each round deals the rows of one half between those of the other.
IREVRNN_INLINE void turn(Vector (&square)[vector_lanes]) {
  constexpr int half = vector_lanes / 2;
  constexpr std::make_integer_sequence<int, vector_lanes> lanes;
  for (int round = 1; round < vector_lanes; round *= 2) {
    Vector dealt[vector_lanes];
    for (int i = 0; i < half; ++i) {
      dealt[2 * i] = in_turn<0>(square[i], square[i + half], lanes);
      dealt[2 * i + 1] = in_turn<half>(square[i], square[i + half], lanes);
    }
    for (int i = 0; i < vector_lanes; ++i) square[i] = dealt[i];
  }
}

// A step of the tree of Sixteen for several sums.
template <int half, size_t count>
void add_halves(float (&sums)[count][Sixteen::lanes]) {
  for (float* x : sums) {
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  }
}

}  // namespace

void multiply_vector(const MatrixProduct& p, int64_t first, int64_t past_last) {
  for (int64_t begin = 0; begin < std::max<int64_t>(1, p.depth); begin += depth_together) {
    const int64_t end = std::min(p.depth, begin + depth_together);
    constexpr int64_t width = tile_vectors * vector_lanes;
    int64_t j = 0;
    for (; j + width <= p.columns; j += width) multiply_columns<tile_vectors, false>(p, j, first, past_last, begin, end);
    for (; j + vector_lanes <= p.columns; j += vector_lanes) multiply_columns<1, false>(p, j, first, past_last, begin, end);
    if (j < p.columns) multiply_columns<1, true>(p, j, first, past_last, begin, end);
  }
}

void multiply_few_rows_vector(int64_t rows, int64_t columns, int64_t depth, const float* a, const float* weight,
                              const float* bias, float* to) {
  constexpr int64_t together = 16;  // columns, whose sums are added up side by side
  float sums[together][Sixteen::lanes];
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t first = 0; first < columns; first += together) {
      const int64_t count = std::min(together, columns - first);
      for (int64_t i = 0; i < count; ++i) {
        Sixteen of_column;
        each_of_row(depth, [&](auto numbers, int64_t k, int v) {
          const Vector of_weight = numbers.load(weight + (first + i) * depth, k);
          of_column.parts[v] = fma(numbers.load(a + row * depth, k), of_weight, of_column.parts[v]);
        });
        memcpy(sums[i], of_column.parts, sizeof of_column.parts);
      }
      add_halves<8>(sums);
      add_halves<4>(sums);
      add_halves<2>(sums);
      add_halves<1>(sums);
      float* results = to + row * columns + first;
      for (int64_t i = 0; i < count; ++i) results[i] = bias ? bias[first + i] + sums[i][0] : sums[i][0];
    }
  }
}

void transpose_vector(int64_t rows, int64_t columns, const float* x, const float* by, float* to) {
  constexpr int64_t side = vector_lanes;
  const auto factor = [&](int64_t row) { return by ? by[row] : 1.0f; };
  const int64_t whole_rows = rows / side * side, whole_columns = columns / side * side;
  for (int64_t first = 0; first < whole_rows; first += side) {
    for (int64_t column = 0; column < whole_columns; column += side) {
      Vector square[side];
      for (int64_t i = 0; i < side; ++i) square[i] = load_vector(x + (first + i) * columns + column) * factor(first + i);
      turn(square);
      for (int64_t i = 0; i < side; ++i) store_vector(to + (column + i) * rows + first, square[i]);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = row < whole_rows ? whole_columns : 0; i < columns; ++i) to[i * rows + row] = x[row * columns + i] * factor(row);
  }
}

void multiply_rows_vector(int64_t width, const float* x, const float* by, float* y, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    each_number(0, width, [&](auto numbers, int64_t i) {
      numbers.store(y + row * width + i, numbers.load(x + row * width, i) * numbers.load(by, i));
    });
  }
}

void layer_norm_vector(const LayerNorm& n, int64_t begin, int64_t end) {
  const float share = 1.0f / static_cast<float>(n.width);
  for (int64_t row = begin; row < end; ++row) {
    const float* x = n.x + row * n.width;
    Sixteen sum, squares;
    each_of_row(n.width, [&](auto numbers, int64_t i, int v) { sum.parts[v] += numbers.load(x, i); });
    const float mean = sum.total() * share;
    each_of_row(n.width, [&](auto numbers, int64_t i, int v) {
      const Vector apart = numbers.kept(numbers.load(x, i) - broadcast<Vector>(mean));
      squares.parts[v] = fma(apart, apart, squares.parts[v]);
    });
    const float scale = 1.0f / std::sqrt(::fmaf(squares.total(), share, n.eps));
    n.moments[2 * row] = mean;
    n.moments[2 * row + 1] = scale;
    each_of_row(n.width, [&](auto numbers, int64_t i, int) {
      Vector y = (numbers.load(x, i) - broadcast<Vector>(mean)) * broadcast<Vector>(scale);
      if (n.weight) y *= numbers.load(n.weight, i);
      if (n.bias) y += numbers.load(n.bias, i);
      numbers.store(n.y + row * n.width + i, y);
    });
  }
}

// With y = s (x - m) before weight and bias, and g the gradient of that, grad_x = s (g - mean(g) - y mean(g y)).
void layer_norm_backward_vector(const LayerNormGradient& n, int64_t begin, int64_t end) {
  const int64_t width = n.norm.width;
  const float share = 1.0f / static_cast<float>(width);
  for (int64_t row = begin; row < end; ++row) {
    const float *x = n.norm.x + row * width, *grad_y = n.grad_y + row * width;
    const Vector mean = broadcast<Vector>(n.norm.moments[2 * row]), scale = broadcast<Vector>(n.norm.moments[2 * row + 1]);
    Sixteen sum, product;
    const auto each = [&](const auto& fn) {
      each_of_row(width, [&](auto numbers, int64_t i, int v) {
        const Vector y = (numbers.load(x, i) - mean) * scale, of_y = numbers.load(grad_y, i);
        fn(numbers, i, v, y, of_y, n.norm.weight ? of_y * numbers.load(n.norm.weight, i) : of_y);
      });
    };
    each([&](auto numbers, int64_t i, int v, Vector y, Vector of_y, Vector g) {
      sum.parts[v] += g;
      product.parts[v] = fma(g, y, product.parts[v]);
      if (n.grad_weight) numbers.store(n.grad_weight + i, fma(of_y, y, numbers.load(n.grad_weight, i)));
      if (n.grad_bias) numbers.store(n.grad_bias + i, of_y + numbers.load(n.grad_bias, i));
    });
    const Vector of_mean = broadcast<Vector>(sum.total() * share), of_scale = broadcast<Vector>(product.total() * share);
    each([&](auto numbers, int64_t i, int, Vector y, Vector, Vector g) {
      numbers.store(n.grad_x + row * width + i, scale * (g - of_mean - y * of_scale));
    });
  }
}

}  // namespace irevrnn
