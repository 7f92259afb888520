// Prints what the vectorised kernels compute, as the hash of the bits of each tensor, and fails where the fixed-point
// scan is not undone. Takes nothing of PyTorch, so that it can be built for any processor.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <vector>

#include "fixed_vector_tiles.h"
#include "vector_tiles.h"

#include "fixed_driver.h"
#include "gate.h"
#include "products.h"

namespace irevrnn {
namespace {

using Floats = std::vector<float>;

struct Case {
  int64_t steps, batch, hidden;
  int couplings;
  Activation activation;

  int64_t lanes() const { return batch * hidden; }
  int64_t numbers() const { return steps * lanes(); }
};

// Uniform numbers, the same everywhere.
class Random {
 public:
  Floats between(float low, float high, int64_t count) {
    Floats numbers(count);
    for (float& x : numbers) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      x = low + (high - low) * static_cast<float>(state_ >> 40) / 16777216.0f;
    }
    return numbers;
  }

 private:
  uint64_t state_ = 1;
};

template <class T>
void print(const char* name, const std::vector<T>& numbers) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(numbers.data());
  for (size_t i = 0; i < numbers.size() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  std::printf(" %s %016llx", name, static_cast<unsigned long long>(hash));
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

template <Activation f, bool keep_all>
void scan(const Case& c) {
  Random random;
  const int64_t interval = keep_all ? everything_saved : usual_interval, borders = (c.steps + 15) / 16 - 1;
  const Floats z = random.between(-2, 2, c.numbers()), grad_out = random.between(-1, 1, c.numbers());
  const Floats h_0 = random.between(-1, 1, c.lanes()), c_0 = random.between(-1, 1, c.lanes());
  const Floats grad_h_n = random.between(-1, 1, c.lanes()), grad_c_n = random.between(-1, 1, c.lanes());
  const Floats u = random.between(-1, 1, c.hidden);
  const Floats a = random.between(-0.2f, 0.2f, c.couplings * c.hidden);
  const Floats b = random.between(-0.2f, 0.2f, c.couplings * c.hidden);
  const Sizes<float> sizes{c.steps, c.batch, c.hidden, c.couplings, interval, c.activation,
                           f, h_0.data(), c_0.data(), u.data(), a.data(), b.data()};

  Floats out(c.numbers()), h_n(c.lanes()), c_n(c.lanes());
  Floats saved(keep_all ? 2 * c.couplings * c.numbers() : borders * c.lanes());
  run<VectorTiles<tile_vectors>>(
      Forward<float>{sizes, z.data(), out.data(), h_n.data(), c_n.data(), saved.data()});

  Floats grad_z(c.numbers()), grad_h_0(c.lanes()), grad_c_0(c.lanes());
  Floats grad_u(c.hidden), grad_a(a.size()), grad_b(b.size());
  run<VectorTiles<tile_vectors>>(
      Backward<float>{sizes, grad_out.data(), grad_h_n.data(), grad_c_n.data(), out.data(), saved.data(),
                      grad_z.data(), grad_h_0.data(), grad_c_0.data(), grad_u.data(), grad_a.data(), grad_b.data()});
  print("out", out);
  print("h_n", h_n);
  print("c_n", c_n);
  print("saved", saved);
  print("grad_z", grad_z);
  print("grad_h_0", grad_h_0);
  print("grad_c_0", grad_c_0);
  print("grad_u", grad_u);
  print("grad_a", grad_a);
  print("grad_b", grad_b);
}

// What stands around the recurrence of a gated block: products, norms and gates.
void block_parts(int64_t rows, int64_t in, int64_t out) {
  std::printf("block, %d rows of %d and %d:", static_cast<int>(rows), static_cast<int>(in), static_cast<int>(out));
  Random random;
  const Floats x = random.between(-2, 2, rows * in), weight = random.between(-1, 1, in * 2 * out);
  const Floats norm_weight = random.between(-1, 1, in), norm_bias = random.between(-1, 1, in);
  const Floats bias = random.between(-1, 1, 2 * out), grad = random.between(-1, 1, rows * out);
  Floats normed(x.size()), moments(2 * rows), grad_x(x), grad_weight(in), grad_bias(in);
  const LayerNorm norm{in, x.data(), norm_weight.data(), norm_bias.data(), 1e-5f, normed.data(), moments.data()};
  layer_norm_vector(norm, 0, rows);
  layer_norm_backward_vector({norm, x.data(), grad_x.data(), grad_weight.data(), grad_bias.data()}, 0, rows);
  print("normed", normed);
  print("grad_x", grad_x);
  print("grad_weight", grad_weight);
  print("grad_bias", grad_bias);
  Floats turned(weight.size()), v(rows * 2 * out), y(rows * out), sums(2 * out), product(in * 2 * out, 0.5f);
  transpose_vector(2 * out, in, weight.data(), bias.data(), turned.data());
  multiply_vector({rows, 2 * out, in, normed.data(), in, 1, turned.data(), bias.data(), 0, v.data()}, 0, rows);
  gate_vector(out, v.data(), bias.data(), grad.data(), y.data(), 0, rows);
  print("v", v);
  print("y", y);
  gate_backward_vector(out, v.data(), bias.data(), grad.data(), v.data(), sums.data(), 0, rows);
  multiply_vector({in, 2 * out, rows, normed.data(), 1, in, v.data(), product.data(), 2 * out, product.data()}, 0, in);
  gelu_vector(y.data(), y.data(), 0, rows * out);
  print("grad_v", v);
  print("sums", sums);
  print("product", product);
  print("gelu", y);
  gelu_backward_vector(grad.data(), y.data(), 0, rows * out);
  print("grad_h", y);
  std::printf("\n");
}

// What the input of a block chooses, and the bits of decays.
void choices(int64_t rows, int64_t width) {
  std::printf("choices, %d rows of %d:", static_cast<int>(rows), static_cast<int>(width));
  Random random;
  const auto draw = [&](float largest) { return random.between(-largest, largest, rows * width); };
  Floats z = draw(2), read = draw(2), turn = draw(4), keep = draw(9), grad_keep(keep.size()), grad_angle(width);
  const Floats angle = random.between(0, 3, width), of_z = draw(1), of_turn = draw(1), of_keep = draw(1);
  Floats chosen = z, angles = turn;
  choose_vector({width, chosen.data(), read.data(), angle.data(), angles.data(), keep.data()}, 0, rows);
  print("z", chosen);
  print("angles", angles);
  print("decays", keep);
  std::printf(" bits %lld", static_cast<long long>(stored_units_vector(keep.data(), rows * width)));
  choose_backward_vector({width, angle.data(), keep.data(), of_z.data(), of_turn.data(), of_keep.data(), 0.1f, z.data(),
                          read.data(), turn.data(), grad_keep.data(), grad_angle.data()},
                         0, rows);
  print("grad_z", z);
  print("grad_read", read);
  print("grad_turn", turn);
  print("grad_keep", grad_keep);
  print("grad_angle", grad_angle);
  std::printf("\n");
}

// The words of several chunks, one chunk behind the other.
struct AllWords {
  std::vector<uint32_t> words;
  std::vector<int64_t> starts, counts;

  explicit AllWords(const std::vector<std::vector<uint32_t>>& chunks) {
    for (const std::vector<uint32_t>& chunk : chunks) {
      starts.push_back(words.size());
      counts.push_back(chunk.size());
      words.insert(words.end(), chunk.begin(), chunk.end());
    }
  }
};

template <Activation f>
void fixed_scan(const Case& c) {
  using Tiles = FixedVectorTiles<narrow_vectors>;
  Random random;
  Floats z = random.between(-2, 2, c.numbers());
  for (int64_t i = 0; i < c.numbers(); i += 101) z[i] *= 300;  // out of the range of the usual scale
  Floats u = random.between(0.3f, 1, c.hidden);
  for (int64_t i = 0; i < c.hidden; i += 4) u[i] = 1;
  const float largest = homogeneous(f) ? 0.01f : 0.1f;  // an f without bounds may let numbers grow
  const Floats a = random.between(-largest, largest, c.couplings * c.hidden);
  const Floats b = random.between(-largest, largest, c.couplings * c.hidden);
  std::vector<int32_t> h(c.lanes()), cells(c.lanes());
  const std::vector<int32_t> zeros(c.lanes());
  std::vector<int64_t> tails(count_chunks(c.lanes(), Tiles::width), 1);
  const std::vector<int64_t> empty = tails;
  std::vector<int32_t> bits_h(c.lanes(), usual_bits), bits_c(bits_h);
  std::vector<int64_t> places = tails;
  const Sizes<float> sizes{c.steps, c.batch, c.hidden, c.couplings, usual_interval, c.activation,
                           f, nullptr, nullptr, u.data(), a.data(), b.data()};

  Floats out(c.numbers()), saved((c.steps - 1) / usual_interval * c.lanes());
  FixedForward<float> forward{
      {sizes, 0, z.data(), h.data(), cells.data(), bits_h.data(), bits_c.data(), tails.data(), places.data(), out.data(),
       saved.data()},
      true};
  run<Tiles>(forward);
  require(forward.bad_step < 0, "a number left the range");
  print("out", out);
  print("saved", saved);
  print("h", h);
  print("c", cells);
  print("bits_h", bits_h);
  print("bits_c", bits_c);
  AllWords all(forward.words);
  int64_t bits = 32 * all.words.size();  // which lie in the order of the tiles
  for (int64_t tail : tails) bits += 63 - __builtin_clzll(tail);
  std::printf(" bits %lld", static_cast<long long>(bits));

  Floats out_again(out.size()), saved_again(saved.size());
  FixedInverse<float> inverse{
      {sizes, 0, z.data(), h.data(), cells.data(), bits_h.data(), bits_c.data(), tails.data(), places.data(),
       out_again.data(), saved_again.data()},
      all.words.data(), static_cast<int64_t>(all.words.size()), static_cast<int64_t>(all.counts.size()),
      all.starts.data(), all.counts.data()};
  run<Tiles>(inverse);
  require(h == zeros && cells == zeros && tails == empty && places == empty, "not the states that it began with");
  require(out == out_again && saved == saved_again, "not the outputs and cell states of the forward pass");
  for (int64_t left : all.counts) require(left == 0, "words are left");
}

template <Activation f>
void print_all(const char* name, const Case& c) {
  std::printf("f %s, g %d, R %d, shape %d %d %d:", name, static_cast<int>(c.activation), c.couplings,
              static_cast<int>(c.steps), static_cast<int>(c.batch), static_cast<int>(c.hidden));
  scan<f, true>(c);
  scan<f, false>(c);
  const bool exactly_undone = c.activation != Activation::tanh && c.activation != Activation::sigmoid;
  if (exactly_undone) fixed_scan<f>(c);
  std::printf("\n");
}

}  // namespace
}  // namespace irevrnn

int main() {
  using irevrnn::Activation;
  for (const auto& [rows, in, out] : {std::array{1, 1, 1}, {5, 3, 2}, {50, 64, 64}, {300, 37, 70}}) {
    irevrnn::block_parts(rows, in, out);
    irevrnn::choices(rows, out);
  }
  for (const auto& [steps, batch, hidden] : {std::array{1, 1, 1}, {5, 2, 3}, {33, 3, 37}, {100, 4, 64}, {300, 2, 17}}) {
    for (int couplings = 0; couplings < 4; ++couplings) {
      for (int activation = 0; activation < 5; ++activation) {
        const irevrnn::Case c{steps, batch, hidden, couplings, static_cast<Activation>(activation)};
        irevrnn::print_all<Activation::tanh>("tanh", c);
        irevrnn::print_all<Activation::sigmoid>("sigmoid", c);
        irevrnn::print_all<Activation::leaky_relu>("leaky_relu", c);
      }
    }
  }
}
