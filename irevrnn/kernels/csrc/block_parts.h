// The parts of a gated block around its recurrence, and their gradients: z = weight norm(x) + bias in front of it, and y = x +
// GLU(weight GELU(h) + bias) behind it. Rows are steps of sequences.
//
// They go through parts of the rows, which find what they compute in between in the caches. Results are the same for any
// number of threads: each row of a product has one thread, and pieces of a part have sums of their own, added up in order.
// Gradients of parameters are added to sums that last from chunk to chunk; a sum has no elements where no gradient is wanted.
#pragma once

#include "gate.h"
#include "op_inputs.h"
#include "parallel.h"
#include "products.h"

namespace irevrnn {
namespace {

// x, contiguous, and no negative view; undefined if it is missing.
Tensor plain(const Tensor& x) { return !x.defined() ? x : x.is_neg() ? x.resolve_neg().contiguous() : x.contiguous(); }

int64_t count_rows(const Tensor& x) { return x.numel() / x.size(-1); }

// An uninitialised tensor with the rows of x.
Tensor allocate_rows(const Tensor& x, int64_t columns) {
  at::DimVector sizes(x.sizes());
  sizes.back() = columns;
  return allocate(sizes, x.options());
}

constexpr int64_t piece_rows = 48, part_rows = 8 * piece_rows;

float* sum_of(const Tensor& sum) { return sum.defined() && sum.numel() > 0 ? write<float>(sum) : nullptr; }

// Uninitialised numbers, for as long as a call takes.
struct Scratch {
  Tensor numbers;
  explicit Scratch(int64_t count) : numbers(allocate({count}, at::kFloat)) {}
  operator float*() const { return numbers.mutable_data_ptr<float>(); }
};

// Sums over rows: of each piece of a part by itself, and of all parts in double precision.
struct PieceSums {
  int64_t columns;
  std::vector<float> sums;
  std::vector<double> totals;
  PieceSums(int64_t columns, bool wanted)
      : columns(columns), sums(wanted ? columns * part_rows / piece_rows : 0), totals(columns) {}
  float* of(int64_t piece) { return sums.empty() ? nullptr : sums.data() + piece * columns; }
  void end_part() {
    for (size_t i = 0; i < sums.size(); ++i) totals[i % columns] += sums[i];
    std::fill(sums.begin(), sums.end(), 0.0f);
  }
  void add_to(float* to) const {
    if (sums.empty()) return;
    for (int64_t i = 0; i < columns; ++i) to[i] += static_cast<float>(totals[i]);
  }
};

// Calls fn(first, count) for all parts.
template <class Fn>
void each_row_part(int64_t rows, const Fn& fn) {
  for (int64_t first = 0; first < rows; first += part_rows) fn(first, std::min(part_rows, rows - first));
}

// Calls fn(begin, end, piece) for the pieces of a part, on several threads.
template <class Fn>
void each_piece(int64_t count, const Fn& fn) {
  parallel_for(0, (count + piece_rows - 1) / piece_rows, 2, [&](int64_t first, int64_t past_last) {
    for (int64_t i = first; i < past_last; ++i) fn(i * piece_rows, std::min(count, (i + 1) * piece_rows), i);
  });
}

// to (rows, columns) += a^T b, where a is (count, rows) and b (count, columns).
void add_outer_product(int64_t count, int64_t rows, int64_t columns, const float* a, const float* b, float* to) {
  const MatrixProduct p{rows, columns, count, a, 1, rows, b, to, columns, to};
  parallel_for(0, rows, std::max<int64_t>(6, (int64_t{1} << 18) / std::max<int64_t>(1, count * columns)),
               [&](int64_t begin, int64_t end) { multiply_vector(p, begin, end); });
}

// to (columns) += the sum of the rows of x (count, columns).
void add_rows(int64_t count, int64_t columns, const float* x, float* to) {
  static const float one = 1.0f;
  multiply_vector({1, columns, count, &one, 0, 0, x, to, columns, to}, 0, 1);
}

// In front, where scale is gamma, which bias has been multiplied by. Without a norm, eps is below 0.
struct Inner {
  Tensor norm_weight, norm_bias, weight, bias, scale;
  float eps;

  int64_t features() const { return weight.size(1); }
  int64_t hidden() const { return weight.size(0); }
  bool norms() const { return eps >= 0; }

  Tensor z(const Tensor& x_) const {
    const Tensor x = plain(x_), z = allocate_rows(x, hidden());
    const int64_t in = features(), out = hidden(), rows = count_rows(x), most = std::min(rows, part_rows);
    const Scratch turned(in * out), normed(norms() ? most * in : 0), moments(2 * most);
    transpose_vector(out, in, read<float>(weight), read<float>(scale), turned);
    each_row_part(rows, [&](int64_t first, int64_t count) {
      const float* from = read<float>(x) + first * in;
      const LayerNorm norm = norm_of(from, normed, moments);
      const MatrixProduct product{count, out, in, norms() ? normed : from, in, 1, turned, read<float>(bias), 0,
                                  write<float>(z) + first * out};
      each_piece(count, [&](int64_t begin, int64_t end, int64_t) {
        if (norms()) layer_norm_vector(norm, begin, end);
        multiply_vector(product, begin, end);
      });
    });
    return z;
  }

  // Returns the gradient of x, and adds those of norm_weight, norm_bias, and of weight and bias with gamma to four sums.
  Tensor backward(const Tensor& x_, const Tensor& grad_z_, const Tensor* sums) const {
    const Tensor x = plain(x_), grad_z = plain(grad_z_), grad_x = allocate(x.sizes(), x.options());
    const int64_t in = features(), out = hidden(), rows = count_rows(x), most = std::min(rows, part_rows);
    const Scratch scaled(most * out), normed(norms() ? most * in : 0), moments(2 * most);
    PieceSums of_weight(in, norms() && sum_of(sums[0])), of_bias(in, norms() && sum_of(sums[1]));
    each_row_part(rows, [&](int64_t first, int64_t count) {
      const float *from = read<float>(x) + first * in, *of_z = read<float>(grad_z) + first * out;
      float* to = write<float>(grad_x) + first * in;
      const LayerNorm norm = norm_of(from, normed, moments);
      const MatrixProduct product{count, in, out, scaled, out, 1, read<float>(weight), nullptr, 0, to};
      each_piece(count, [&](int64_t begin, int64_t end, int64_t piece) {
        multiply_rows_vector(out, of_z, read<float>(scale), scaled, begin, end);
        multiply_vector(product, begin, end);
        if (!norms()) return;
        layer_norm_vector(norm, begin, end);
        layer_norm_backward_vector({norm, to, to, of_weight.of(piece), of_bias.of(piece)}, begin, end);
      });
      of_weight.end_part();
      of_bias.end_part();
      if (float* sum = sum_of(sums[2])) add_outer_product(count, out, in, of_z, norms() ? normed : from, sum);
      if (float* sum = sum_of(sums[3])) add_rows(count, out, of_z, sum);
    });
    of_weight.add_to(sum_of(sums[0]));
    of_bias.add_to(sum_of(sums[1]));
    return grad_x;
  }

 private:
  LayerNorm norm_of(const float* x, float* normed, float* moments) const {
    return {features(), x, read<float>(norm_weight), read<float>(norm_bias), eps, normed, moments};
  }
};

// Behind. residual: whether x is added.
struct Outer {
  Tensor weight, bias;
  bool residual;

  Tensor y(const Tensor& h_, const Tensor& x_) const {
    const Tensor h = plain(h_), x = plain(x_), y = allocate_rows(h, width());
    const Between between(*this, count_rows(h));
    each_row_part(count_rows(h), [&](int64_t first, int64_t count) {
      const MatrixProduct product = between.product(count);
      const float *of_h = read<float>(h) + first * hidden(), *of_x = residual ? read<float>(x) + first * width() : nullptr;
      each_piece(count, [&](int64_t begin, int64_t end, int64_t) {
        gelu_vector(of_h, between.active, begin * hidden(), end * hidden());
        multiply_vector(product, begin, end);
        gate_vector(width(), between.v, read<float>(bias), of_x, write<float>(y) + first * width(), begin, end);
      });
    });
    return y;
  }

  // Returns the gradient of h, and adds those of weight and bias to two sums.
  Tensor backward(const Tensor& h_, const Tensor& grad_y_, const Tensor* sums) const {
    const Tensor h = plain(h_), grad_y = plain(grad_y_), grad_h = allocate(h.sizes(), h.options());
    const Between between(*this, count_rows(h));
    float* const grad_v = between.v;  // in its place
    PieceSums of_bias(2 * width(), true);
    each_row_part(count_rows(h), [&](int64_t first, int64_t count) {
      const float *of_h = read<float>(h) + first * hidden(), *of_y = read<float>(grad_y) + first * width();
      float* to = write<float>(grad_h) + first * hidden();
      const MatrixProduct again = between.product(count);
      const MatrixProduct product{count, hidden(), 2 * width(), grad_v, 2 * width(), 1, read<float>(weight), nullptr, 0, to};
      each_piece(count, [&](int64_t begin, int64_t end, int64_t piece) {
        gelu_vector(of_h, between.active, begin * hidden(), end * hidden());
        multiply_vector(again, begin, end);
        gate_backward_vector(width(), between.v, read<float>(bias), of_y, grad_v, of_bias.of(piece), begin, end);
        multiply_vector(product, begin, end);
        gelu_backward_vector(of_h, to, begin * hidden(), end * hidden());
      });
      of_bias.end_part();
      if (float* sum = sum_of(sums[0])) add_outer_product(count, 2 * width(), hidden(), grad_v, between.active, sum);
    });
    if (float* sum = sum_of(sums[1])) of_bias.add_to(sum);
    return grad_h;
  }

 private:
  int64_t hidden() const { return weight.size(1); }
  int64_t width() const { return weight.size(0) / 2; }

  // GELU(h) and v = weight GELU(h) of a part.
  struct Between {
    int64_t hidden, columns;
    Scratch turned, active, v;
    Between(const Outer& outer, int64_t rows)
        : hidden(outer.hidden()), columns(2 * outer.width()), turned(hidden * columns),
          active(std::min(rows, part_rows) * hidden), v(std::min(rows, part_rows) * columns) {
      transpose_vector(columns, hidden, read<float>(outer.weight), nullptr, turned);
    }
    MatrixProduct product(int64_t rows) const { return {rows, columns, hidden, active, hidden, 1, turned, nullptr, 0, v}; }
  };
};

}  // namespace
}  // namespace irevrnn
