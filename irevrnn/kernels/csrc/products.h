// Matrix products and layer norms of float32 that give the same bits with vectors of any width and on any number of threads:
// sums over k are taken in its order, 256 at a time, with fused multiply-adds; sums over a row as sixteen, which a fixed tree
// adds up.
#pragma once

#include <cstdint>

namespace irevrnn {

// to (rows, columns) = from + a b, where a(i, k) is at a[i * a_row + k * a_column], and b (depth, columns) and to lie row by row.
// `from` is added to each row of the result unless it is null: it is `to` itself, or a bias, with a step of 0 from row to row.
struct MatrixProduct {
  int64_t rows, columns, depth;
  const float* a;
  int64_t a_row, a_column;
  const float* b;
  const float* from;
  int64_t from_step;
  float* to;
};
void multiply_vector(const MatrixProduct& p, int64_t begin, int64_t end);  // rows begin to end

// to (rows, columns) = bias + a weight^T for a (rows, depth) and weight (columns, depth), as sixteen sums over k each: for so few
// rows that it would take longer to turn the weight. bias (columns) may be null.
void multiply_few_rows_vector(int64_t rows, int64_t columns, int64_t depth, const float* a, const float* weight,
                              const float* bias, float* to);

// to (columns, rows) = the transpose of x (rows, columns) with each of its rows times a number of `by`, if that is not null.
void transpose_vector(int64_t rows, int64_t columns, const float* x, const float* by, float* to);

// y = x * by for each row of x (N, width).
void multiply_rows_vector(int64_t width, const float* x, const float* by, float* y, int64_t begin, int64_t end);

// y = (x - mean) / deviation * weight + bias for each row of x (N, width), where the variance has eps added; weight and bias
// may be null. moments (N, 2) are the mean and 1 / deviation.
struct LayerNorm {
  int64_t width;
  const float* x;
  const float* weight;
  const float* bias;
  float eps;
  float* y;
  float* moments;
};
void layer_norm_vector(const LayerNorm& n, int64_t begin, int64_t end);
// Gradients of x and, added to what is there, of weight and bias unless they are null. y is not read.
struct LayerNormGradient {
  LayerNorm norm;
  const float* grad_y;
  float* grad_x;
  float* grad_weight;
  float* grad_bias;
};
void layer_norm_backward_vector(const LayerNormGradient& n, int64_t begin, int64_t end);

}  // namespace irevrnn
