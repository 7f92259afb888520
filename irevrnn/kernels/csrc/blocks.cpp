// A chunk of steps through gated blocks on top of each other, forward in floating point or in fixed point, and back. In one
// operator each: modules and operators called one by one take longer than they compute in short chunks.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <bit>

#include "block_step.h"
#include "launch_on_cpu.h"
#include "scan_autograd.h"

namespace irevrnn {
namespace {

// What a pass keeps of a block for its gradient. cells: c before each segment but the first.
struct Kept {
  Tensor x, h, cells, h_0, c_0;
};
constexpr size_t kept_tensors = 5;

void add(std::vector<Tensor>& kept, const Kept& k) { kept.insert(kept.end(), {k.x, k.h, k.cells, k.h_0, k.c_0}); }
Kept kept_of(const std::vector<Tensor>& kept, int64_t i) {
  const Tensor* k = kept.data() + kept_tensors * i;
  return {k[0], k[1], k[2], k[3], k[4]};
}

// Takes x through all blocks. recur(i, z) runs the recurrence of block i, and returns what is kept of it; x is added.
template <class Recur>
Tensor through(const Blocks& blocks, const Tensor& input, std::vector<Tensor>* kept, const Recur& recur) {
  TORCH_CHECK_VALUE(input.scalar_type() == at::kFloat && input.size(-1) == blocks.inner(0).features(),
                    "x must be float32 of shape (..., ", blocks.inner(0).features(), "); got ", input.scalar_type(),
                    " of shape ", input.sizes());
  Tensor x = input.contiguous();
  for (int64_t i = 0; i < blocks.count(); ++i) {
    Kept k = recur(i, blocks.inner(i).z(x));
    k.x = x;
    if (kept) add(*kept, k);
    x = blocks.outer(i).y(blocks.shown(k.h, i), blocks.shown(x, i));
  }
  return x;
}

// A pass that has been run, as a function of x and of the states before it, (L, B, H) each.
struct BlocksPass : torch::autograd::Function<BlocksPass> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor&, const Tensor&, const Blocks& blocks,
                               const std::vector<Tensor>& kept, const std::vector<Tensor>& sums, const Tensor& y,
                               const Tensor& h_n, const Tensor& c_n) {
    auto& data = ctx->saved_data;
    data["given"] = blocks.given;
    data["eps"] = blocks.eps;
    data["options"] = std::vector<std::string>{blocks.activation, blocks.coupling_activation};
    data["flags"] = std::vector<bool>{blocks.residual, blocks.last};
    data["layout"] = MaybeList({blocks.resets, blocks.batch_sizes});
    data["kept"] = kept;
    data["sums"] = sums;
    TORCH_CHECK_VALUE(sums.size() == Blocks::sums * blocks.count() && kept.size() == kept_tensors * blocks.count(),
                      "a gradient needs ", Blocks::sums, " sums for each block; got ", sums.size());
    ctx->set_materialize_grads(false);
    return {y, h_n, c_n};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& arriving) {
    at::AutoDispatchBelowADInplaceOrView not_differentiated;
    auto& data = ctx->saved_data;
    const auto options = data["options"].to<std::vector<std::string>>();
    const auto flags = data["flags"].toBoolList();
    const auto layout = data["layout"].to<MaybeList>();
    const Blocks blocks(data["given"].to<MaybeList>(), data["eps"].toDoubleVector(), flags[0], flags[1], options[0],
                        options[1], layout.get(0), layout.get(1));
    const auto kept = data["kept"].toTensorVector(), sums = data["sums"].toTensorVector();
    const int64_t count = blocks.count();
    std::vector<Tensor> of_h(count), of_c(count);
    Tensor grad = arriving[0];
    for (int64_t i = count - 1; i >= 0; --i) {
      const auto upstream = [&](size_t j) {
        return arriving[j].defined() ? Maybe(arriving[j].select(0, i)) : std::nullopt;
      };
      grad = block_gradient(blocks, i, kept_of(kept, i), sums.data() + Blocks::sums * i, grad, upstream(1), upstream(2),
                            of_h[i], of_c[i]);
    }
    variable_list gradients(9);
    gradients[0] = grad;
    gradients[1] = at::stack(of_h);
    gradients[2] = at::stack(of_c);
    return gradients;
  }

  // Returns the gradient of the input of block i, given those of its output and last states, which may be missing.
  static Tensor block_gradient(const Blocks& blocks, int64_t i, const Kept& k, const Tensor* sums, const Tensor& grad_y,
                               const Maybe& grad_h_n, const Maybe& grad_c_n, Tensor& of_h, Tensor& of_c) {
    Tensor grad_h;
    if (grad_y.defined()) {
      const Tensor shown = blocks.outer(i).backward(blocks.shown(k.h, i), grad_y, sums + Blocks::outer_sums);
      grad_h = shown.sizes() == k.h.sizes() ? shown : at::zeros_like(k.h);
      if (!grad_h.is_same(shown)) blocks.shown(grad_h, i).copy_(shown);
    }
    const auto found = backward_pass<LaunchOnCpu>(maybe(grad_h), grad_h_n, grad_c_n, k.h, k.cells, k.h_0, k.c_0,
                                                  blocks.pass(k.h, k.h_0, i, usual_interval), true);
    of_h = found[1];
    of_c = found[2];
    for (size_t j = 0; j < 3; ++j) {
      if (float* sum = sum_of(sums[Blocks::recurrent_sums + j])) add_rows(1, found[3 + j].numel(), read<float>(found[3 + j]), sum);
    }
    Tensor grad_x = blocks.inner(i).backward(k.x, found[0], sums);
    if (blocks.residual && grad_y.defined()) blocks.shown(grad_x, i).add_(grad_y);
    return grad_x;
  }
};

#define IREVRNN_BLOCKS                                                                                                  \
  const MaybeList &parameters, at::ArrayRef<double> eps, bool residual, bool last, Name activation, Name coupling_activation

std::tuple<Tensor, Tensor, Tensor> blocks_scan(const Tensor& x, const Tensor& h_0, const Tensor& c_0, IREVRNN_BLOCKS,
                                               at::TensorList sums, const Maybe& resets, const Maybe& batch_sizes) {
  const Blocks blocks(parameters, eps, residual, last, activation, coupling_activation, resets, batch_sizes);
  const bool graph = differentiated({x, h_0, c_0});
  std::vector<Tensor> kept, h_n, c_n;
  const auto run = [&] {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    return through(blocks, x, graph ? &kept : nullptr, [&](int64_t i, const Tensor& z) {
      const Tensor h = h_0.select(0, i).detach(), c = c_0.select(0, i).detach();
      const PassInputs inputs = blocks.pass(z, h, i, graph ? usual_interval : nothing_saved);
      const auto [out, h_end, c_end, cells] = forward_pass<LaunchOnCpu>(z, h, c, inputs, true);
      h_n.push_back(h_end);
      c_n.push_back(c_end);
      return Kept{{}, out, cells, h, c};
    });
  };
  const Tensor y = run(), h = at::stack(h_n), c = at::stack(c_n);
  if (!graph) return {y, h, c};
  const variable_list results = BlocksPass::apply(x, h_0, c_0, blocks, kept, sums.vec(), y, h, c);
  return {results[0], results[1], results[2]};
}

// The values of integers with scales of so many bits.
Tensor value_of(const Tensor& x_, const Tensor& bits_) {
  const Tensor x = x_.contiguous(), bits = bits_.contiguous(), y = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  const int32_t *from = read<int32_t>(x), *bit = read<int32_t>(bits);
  float* to = write<float>(y);
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = static_cast<float>(from[i]) * std::bit_cast<float>((127 - bit[i]) << 23);
  return y;
}

// States in fixed point of all blocks: h and c (L, B, H), scales (L, 2, B, H), and tails and places of L times as many bit
// stacks as a block has. They move in place.
struct FixedStates {
  std::vector<Tensor> all;
  int64_t streams;

  FixedStates(at::TensorList given, int64_t blocks) : streams(vector_streams(given[0][0].numel())) {
    for (int64_t i = 0; i < 5; ++i) {
      const bool fresh = i >= 3 && given[i].numel() == 0;
      all.push_back(fresh ? at::ones({blocks * streams}, given[i].options()) : copy_of(given[i]));
    }
  }
  std::vector<Tensor> of(int64_t i) const {
    return {all[0].select(0, i), all[1].select(0, i), all[2].select(0, i), all[3].narrow(0, i * streams, streams),
            all[4].narrow(0, i * streams, streams)};
  }
  Tensor value(int64_t i, int64_t which) const { return value_of(all[which].select(0, i), all[2].select(0, i).select(0, which)); }
  FixedTensors pass(const Blocks& blocks, int64_t i, const Tensor& z, int64_t steps, bool inverse, bool save) const {
    return FixedTensors(z, of(i), steps, streams, inverse, blocks.recurrent(i), blocks.activation, blocks.coupling_activation,
                        save, blocks.resets, blocks.batch_sizes, true);
  }
};

std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor, std::vector<Tensor>, int64_t, int64_t> blocks_fixed_scan(
    const Tensor& x, at::TensorList given, int64_t steps, IREVRNN_BLOCKS, bool record, bool save, const Maybe& resets,
    const Maybe& batch_sizes) {
  const Blocks blocks(parameters, eps, residual, last, activation, coupling_activation, resets, batch_sizes);
  const FixedStates states(given, blocks.count());
  std::vector<Tensor> kept, words, counts;
  int64_t bad_block = -1, bad_step = -1;
  const Tensor y = through(blocks, x, save ? &kept : nullptr, [&](int64_t i, const Tensor& z) {
    Kept k;
    if (save) k.h_0 = states.value(i, 0), k.c_0 = states.value(i, 1);
    const FixedTensors pass = states.pass(blocks, i, z, steps, false, save);
    const auto results = LaunchOnCpu(z, true).scan_in_vectors(pass, record);
    k.h = std::get<0>(results);
    k.cells = std::get<4>(results);
    words.push_back(std::get<2>(results));
    counts.push_back(std::get<3>(results));
    const int64_t bad = std::get<5>(results);
    if (bad >= 0 && bad_block < 0) bad_block = i, bad_step = bad;  // what follows is not used
    return k;
  });
  return {y, states.all, at::cat(words), at::cat(counts), kept, bad_block, bad_step};
}

std::tuple<Tensor, std::vector<Tensor>, Tensor, std::vector<Tensor>> blocks_fixed_unscan(
    const Tensor& x, at::TensorList given, int64_t steps, const Tensor& words_, const Tensor& starts_, const Tensor& counts_,
    IREVRNN_BLOCKS, const Maybe& resets, const Maybe& batch_sizes) {
  const Blocks blocks(parameters, eps, residual, last, activation, coupling_activation, resets, batch_sizes);
  const FixedStates states(given, blocks.count());
  const int64_t streams = states.streams, all = blocks.count() * streams;
  const Tensor words = checked(x, words_, words_.numel(), at::kInt, "words");
  const Tensor starts = checked(x, starts_, all, at::kLong, "starts");
  const Tensor left = copy_of(checked(x, counts_, all, at::kLong, "counts"));
  std::vector<Tensor> kept;
  const Tensor y = through(blocks, x, &kept, [&](int64_t i, const Tensor& z) {
    const FixedTensors pass = states.pass(blocks, i, z, steps, true, true);
    FixedInverse<float> s;
    pass.fill(s);
    s.words = read<uint32_t>(words);
    s.words_size = words.numel();
    s.streams = streams;
    s.starts = read<int64_t>(starts) + i * streams;
    s.counts = write<int64_t>(left) + i * streams;
    LaunchOnCpu(z, true).unscan_in_vectors(s);
    return Kept{{}, pass.out, pass.saved, states.value(i, 0), states.value(i, 1)};
  });
  return {y, states.all, left, kept};
}

// y of such a pass as a function of x, h_0 and c_0, which only carry their gradients, as the last states do.
std::tuple<Tensor, Tensor, Tensor> blocks_gradient(const Tensor& x, const Tensor& h_0, const Tensor& c_0, const Tensor& y,
                                                   at::TensorList kept, IREVRNN_BLOCKS, at::TensorList sums,
                                                   const Maybe& resets, const Maybe& batch_sizes) {
  const Blocks blocks(parameters, eps, residual, last, activation, coupling_activation, resets, batch_sizes);
  const variable_list results = BlocksPass::apply(x, h_0, c_0, blocks, kept.vec(), sums.vec(), y,
                                                  at::zeros(h_0.sizes(), h_0.options()), at::zeros(c_0.sizes(), c_0.options()));
  return {results[0], results[1], results[2]};
}

#undef IREVRNN_BLOCKS

}  // namespace

TORCH_LIBRARY_FRAGMENT(irevrnn, m) {
  m.def(
      "blocks_scan(Tensor x, Tensor h_0, Tensor c_0, Tensor?[] parameters, float[] eps, bool residual, bool last, "
      "str activation, str coupling_activation, Tensor(a!)[] sums, Tensor? resets=None, Tensor? batch_sizes=None) "
      "-> (Tensor y, Tensor h_n, Tensor c_n)",
      &blocks_scan);
  m.def(
      "blocks_step(Tensor x, Tensor h_0, Tensor c_0, Tensor?[] parameters, float[] eps, bool residual, str activation, "
      "str coupling_activation) -> (Tensor y, Tensor h, Tensor c)",
      &blocks_step);
  m.def(
      "blocks_fixed_scan(Tensor x, Tensor[] states, int steps, Tensor?[] parameters, float[] eps, bool residual, "
      "bool last, str activation, str coupling_activation, bool record, bool save, Tensor? resets=None, "
      "Tensor? batch_sizes=None) "
      "-> (Tensor y, Tensor[] states, Tensor words, Tensor counts, Tensor[] saved, int bad_block, int bad_step)",
      &blocks_fixed_scan);
  m.def(
      "blocks_fixed_unscan(Tensor x, Tensor[] states, int steps, Tensor words, Tensor starts, Tensor counts, "
      "Tensor?[] parameters, float[] eps, bool residual, bool last, str activation, str coupling_activation, "
      "Tensor? resets=None, Tensor? batch_sizes=None) "
      "-> (Tensor y, Tensor[] states, Tensor counts_left, Tensor[] saved)",
      &blocks_fixed_unscan);
  m.def(
      "blocks_gradient(Tensor x, Tensor h_0, Tensor c_0, Tensor y, Tensor[] saved, Tensor?[] parameters, float[] eps, "
      "bool residual, bool last, str activation, str coupling_activation, Tensor(a!)[] sums, Tensor? resets=None, "
      "Tensor? batch_sizes=None) -> (Tensor y, Tensor h_n, Tensor c_n)",
      &blocks_gradient);
}

}  // namespace irevrnn
