// What a gated block computes behind its recurrence, y = x + GLU(weight GELU(h) + bias), with its gradient; and what this
// shares with the part in front (block_input.h). Rows are steps of sequences.
//
// The parts go through parts of the rows, which find what they compute in between in the caches. Results are the same for any
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
int64_t count_pieces(int64_t rows) { return (rows + piece_rows - 1) / piece_rows; }

float* sum_of(const Tensor& sum) { return sum.defined() && sum.numel() > 0 ? write<float>(sum) : nullptr; }

// Uninitialised numbers, for as long as a call takes; null for none.
struct Scratch {
  Tensor numbers;
  explicit Scratch(int64_t count) : numbers(allocate({count}, at::kFloat)) {}
  operator float*() const { return numbers.numel() > 0 ? numbers.mutable_data_ptr<float>() : nullptr; }
};

// Sums over rows: of each piece of a part by itself, and of all parts in double precision.
struct PieceSums {
  int64_t columns;
  std::vector<float> sums;
  std::vector<double> totals;
  PieceSums(int64_t columns, int64_t rows, bool wanted)
      : columns(columns), sums(wanted ? columns * count_pieces(std::min(rows, part_rows)) : 0), totals(wanted ? columns : 0) {}
  float* of(int64_t piece) { return sums.empty() ? nullptr : sums.data() + piece * columns; }
  void end_part() {
    for (auto piece = sums.begin(); piece != sums.end(); piece += columns) {
      for (int64_t i = 0; i < columns; ++i) totals[i] += piece[i];
    }
    std::fill(sums.begin(), sums.end(), 0.0f);
  }
  void add_to(float* to) const {
    for (size_t i = 0; i < totals.size(); ++i) to[i] += static_cast<float>(totals[i]);
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
  parallel_for(0, count_pieces(count), 2, [&](int64_t first, int64_t past_last) {
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
    PieceSums of_bias(2 * width(), count_rows(h), true);
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
