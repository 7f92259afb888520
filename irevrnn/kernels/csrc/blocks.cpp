// A chunk of steps through gated blocks on top of each other, forward in floating point or in fixed point, and back. In one
// call each: modules and operators called one by one take longer than they compute in short chunks.
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

// What a pass keeps of a block for its gradient: x, h, the cells, which are c before each segment but the first, and what the
// recurrence took. Behind those of all blocks come h and c of all before the pass, and the bits.
struct Kept {
  Tensor x, h, cells;
  std::vector<Tensor> weights;

  static constexpr size_t of_all = 3;
  static size_t of_block(const GatedBlocks& blocks) { return 3 + blocks.count_weights(); }
  static Kept in(const std::vector<Tensor>& all, const GatedBlocks& blocks, int64_t i) {
    const Tensor* own = all.data() + of_block(blocks) * i;
    return {own[0], own[1], own[2], {own + 3, own + of_block(blocks)}};
  }
  void add_to(std::vector<Tensor>& all) const {
    all.insert(all.end(), {x, h, cells});
    all.insert(all.end(), weights.begin(), weights.end());
  }
};

struct Taken {
  Tensor y, bits;  // the bits that the input chose to forget, a scalar
};

// Takes x through all blocks. recur(i, z, weights) runs the recurrence of block i, and returns h and the cells.
template <class Recur>
Taken through(const GatedBlocks& blocks, const Tensor& input, int64_t batch, std::vector<Tensor>* kept, const Recur& recur) {
  TORCH_CHECK_VALUE(input.scalar_type() == at::kFloat && input.size(-1) == blocks.inner(0).features(),
                    "x must be float32 of shape (..., ", blocks.inner(0).features(), "); got ", input.scalar_type(),
                    " of shape ", input.sizes());
  Tensor x = input.contiguous();
  int64_t units = 0;
  for (int64_t i = 0; i < blocks.count(); ++i) {
    const Drive drive = blocks.inner(i).drive(x);
    if (drive.decay.defined()) units += 2 * stored_units_vector(read<float>(drive.decay), drive.decay.numel());  // of h and c
    const std::vector<Tensor> weights = blocks.weights(i, drive, batch);
    const auto [h, cells] = recur(i, drive.z, weights);
    if (kept) Kept{x, h, cells, weights}.add_to(*kept);
    x = blocks.outer(i).y(blocks.shown(h, i), blocks.shown(x, i));
  }
  const Tensor bits = allocate({}, input.options().dtype(at::kDouble));
  *write<double>(bits) = static_cast<double>(units) / units_of_bit;
  return {x, bits};
}

// A pass that has been run, as a function of x and of the states before it, (L, B, H) each.
struct BlocksPass : torch::autograd::Function<BlocksPass> {
  static variable_list forward(AutogradContext* ctx, const Tensor&, const Tensor&, const Tensor&, const BlocksPointer& blocks,
                               const std::vector<Tensor>& kept, const StepLayout& layout, const Tensor& y, const Tensor& h_n,
                               const Tensor& c_n) {
    TORCH_CHECK_VALUE(blocks->sums.size() == GatedBlocks::of_sums * blocks->blocks.size() &&
                          kept.size() == Kept::of_block(*blocks) * blocks->blocks.size() + Kept::of_all,
                      "a gradient needs ", GatedBlocks::of_sums, " sums for each block; got ", blocks->sums.size());
    ctx->saved_data["blocks"] = blocks;
    ctx->saved_data["kept"] = kept;
    ctx->saved_data["layout"] = MaybeList({layout.resets, layout.batch_sizes});
    ctx->set_materialize_grads(false);
    return {y, h_n, c_n, kept.back().detach()};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& arriving) {
    at::AutoDispatchBelowADInplaceOrView not_differentiated;
    const auto pointer = ctx->saved_data["blocks"].toCustomClass<GatedBlocks>();
    const auto kept = ctx->saved_data["kept"].toTensorVector();
    const auto layout = ctx->saved_data["layout"].to<MaybeList>();
    const GatedBlocks& blocks = *pointer;
    const int64_t count = blocks.count();
    std::vector<Tensor> of_h(count), of_c(count);
    Tensor grad = arriving[0];
    const float of_bits = arriving[3].defined() ? 2 * arriving[3].item<float>() : 0.0f;  // a decay stores those of h and c
    for (int64_t i = count - 1; i >= 0; --i) {
      const auto of_block = [i](const Tensor& x) { return x.defined() ? select_first(x, i) : x; };
      const State before{of_block(kept.end()[-3]), of_block(kept.end()[-2])};
      const State after{of_block(arriving[1]), of_block(arriving[2])};
      State gradient;
      grad = block_gradient(blocks, i, {layout.get(0), layout.get(1)}, Kept::in(kept, blocks, i), before, grad, after, of_bits,
                            gradient);
      of_h[i] = gradient.h;
      of_c[i] = gradient.c;
    }
    variable_list gradients(9);
    gradients[0] = grad;
    gradients[1] = at::stack(of_h);
    gradients[2] = at::stack(of_c);
    return gradients;
  }

 private:
  struct State {
    Tensor h, c;
  };

  // Returns the gradient of the input of block i, and sets that of the states before, given those of its output and of the
  // states after, which may be missing.
  static Tensor block_gradient(const GatedBlocks& blocks, int64_t i, const StepLayout& layout, const Kept& k,
                               const State& before, const Tensor& grad_y, const State& after, float of_bits, State& gradient) {
    const Tensor* sums = blocks.sums.data() + GatedBlocks::of_sums * i;
    Tensor grad_h;
    if (grad_y.defined()) {
      const Tensor shown = blocks.outer(i).backward(blocks.shown(k.h, i), grad_y, sums + GatedBlocks::outer_sums);
      grad_h = shown.sizes() == k.h.sizes() ? shown : at::zeros_like(k.h);
      if (!grad_h.is_same(shown)) blocks.shown(grad_h, i).copy_(shown);
    }
    const Inner& inner = blocks.inner(i);
    const auto found =
        backward_pass<LaunchOnCpu>(maybe(grad_h), maybe(after.h), maybe(after.c), k.h, k.cells, before.h, before.c,
                                   layout.pass(blocks, k.h, before.h, k.weights, usual_interval), true);
    gradient = {found[1], found[2]};
    Drive of_drive{found[0], {}, {}};
    Tensor decay;
    const auto add = [&](size_t place, const Tensor& g, int64_t rows) {
      if (float* sum = sum_of(sums[place])) add_rows(rows, g.numel() / rows, read<float>(g), sum);
    };
    if (!blocks.selective()) {
      for (size_t j = 0; j < 3; ++j) add(GatedBlocks::recurrent_sums + j, found[3 + j], 1);
    } else {
      if (inner.has(Inner::to_turn)) of_drive.angle = found[3];
      else add(Inner::angle_sum, found[3], before.h.size(0));
      if (inner.has(Inner::to_keep)) of_drive.decay = found[4], decay = k.weights[1];
      else if (k.weights.size() == 2) add(GatedBlocks::recurrent_sums, found[4], before.h.size(0));
    }
    Tensor grad_x = inner.backward(k.x, of_drive, decay, of_bits, sums);
    if (blocks.residual && grad_y.defined()) blocks.shown(grad_x, i).add_(grad_y);
    return grad_x;
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> scan_blocks(const BlocksPointer& blocks, const Tensor& x, const Tensor& h_0,
                                                       const Tensor& c_0, const Maybe& resets, const Maybe& batch_sizes) {
  const StepLayout layout{resets, batch_sizes};
  const bool graph = differentiated({x, h_0, c_0});
  std::vector<Tensor> kept, h_n, c_n;
  const auto run = [&] {
    at::AutoDispatchBelowADInplaceOrView past_this_function;
    return through(*blocks, x, h_0.size(1), graph ? &kept : nullptr, [&](int64_t i, const Tensor& z, const auto& weights) {
      const Tensor h = select_first(h_0, i), c = select_first(c_0, i);
      const PassInputs inputs = layout.pass(*blocks, z, h, weights, graph ? usual_interval : nothing_saved);
      const auto [out, h_end, c_end, cells] = forward_pass<LaunchOnCpu>(z, h, c, inputs, true);
      h_n.push_back(h_end);
      c_n.push_back(c_end);
      return std::pair(out, cells);
    });
  };
  const auto [y, bits] = run();
  const Tensor h = at::stack(h_n), c = at::stack(c_n);
  if (!graph) return {y, h, c, bits};
  kept.insert(kept.end(), {h_0.detach(), c_0.detach(), bits});
  const variable_list results = BlocksPass::apply(x, h_0, c_0, blocks, kept, layout, y, h, c);
  return {results[0], results[1], results[2], results[3]};
}

// States in fixed point of all blocks: h and c (L, B, H), scales (L, 2, B, H), and tails and places of L times as many bit
// stacks as a block has. They move in place.
struct FixedStates {
  std::vector<Tensor> all;
  int64_t blocks, streams;

  FixedStates(const std::vector<Tensor>& given, int64_t blocks)
      : blocks(blocks), streams(vector_streams(given[0].numel() / std::max<int64_t>(1, blocks))) {
    for (int64_t i = 0; i < 5; ++i) {
      const bool fresh = i >= 3 && given[i].numel() == 0;
      all.push_back(fresh ? at::ones({blocks * streams}, given[i].options()) : copy_of(given[i]));
    }
  }
  int64_t batch() const { return all[0].size(1); }
  FixedTensors pass(const GatedBlocks& all_blocks, int64_t i, const StepLayout& layout, const Tensor& z,
                    const std::vector<Tensor>& weights, int64_t steps, bool inverse, bool save) const {
    std::vector<Tensor> own;
    for (int64_t j = 0; j < 3; ++j) own.push_back(select_first(all[j], i));
    for (int64_t j = 3; j < 5; ++j) own.push_back(part_of(all[j], i * streams, streams));
    return FixedTensors(z, own, steps, streams, inverse, weights, all_blocks.activation,
                        all_blocks.coupling_activation, save, layout.resets, layout.batch_sizes, true);
  }
  // Appends the values of h and c, which have a quantum of 2^-bits each.
  void add_values(std::vector<Tensor>& kept) const {
    const int64_t lanes = all[0].numel() / std::max<int64_t>(1, blocks);
    for (int64_t which = 0; which < 2; ++which) {
      const Tensor y = allocate(all[0].sizes(), all[0].options().dtype(at::kFloat));
      const int32_t *from = read<int32_t>(all[which]), *bits = read<int32_t>(all[2]) + which * lanes;
      float* to = write<float>(y);
      for (int64_t i = 0; i < blocks; ++i, from += lanes, bits += 2 * lanes, to += lanes) {
        for (int64_t j = 0; j < lanes; ++j) to[j] = static_cast<float>(from[j]) * std::bit_cast<float>((127 - bits[j]) << 23);
      }
      kept.push_back(y);
    }
  }
};

std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor, std::vector<Tensor>, int64_t, int64_t> scan_fixed(
    const BlocksPointer& blocks, const Tensor& x, const std::vector<Tensor>& given, int64_t steps, bool record, bool save,
    const Maybe& resets, const Maybe& batch_sizes) {
  at::AutoDispatchBelowADInplaceOrView no_graph;
  const FixedStates states(given, blocks->count());
  std::vector<Tensor> kept, values, words, counts;
  if (save) states.add_values(values);
  int64_t bad_block = -1, bad_step = -1;
  const auto recur = [&](int64_t i, const Tensor& z, const std::vector<Tensor>& weights) {
    const FixedTensors pass = states.pass(*blocks, i, {resets, batch_sizes}, z, weights, steps, false, save);
    const auto results = LaunchOnCpu(z, true).scan_in_vectors(pass, record);
    words.push_back(std::get<2>(results));
    counts.push_back(std::get<3>(results));
    const int64_t bad = std::get<5>(results);
    if (bad >= 0 && bad_block < 0) bad_block = i, bad_step = bad;  // what follows is not used
    return std::pair(pass.out, pass.saved);
  };
  const auto [y, bits] = through(*blocks, x, states.batch(), save ? &kept : nullptr, recur);
  kept.insert(kept.end(), values.begin(), values.end());
  kept.push_back(bits);
  return {y, states.all, at::cat(words), at::cat(counts), kept, bad_block, bad_step};
}

std::tuple<Tensor, std::vector<Tensor>, Tensor, std::vector<Tensor>> unscan_fixed(
    const BlocksPointer& blocks, const Tensor& x, const std::vector<Tensor>& given, int64_t steps, const Tensor& words_,
    const Tensor& starts_, const Tensor& counts_, const Maybe& resets, const Maybe& batch_sizes) {
  at::AutoDispatchBelowADInplaceOrView no_graph;
  const FixedStates states(given, blocks->count());
  const int64_t streams = states.streams, all = blocks->count() * streams;
  const Tensor words = checked(x, words_, words_.numel(), at::kInt, "words");
  const Tensor starts = checked(x, starts_, all, at::kLong, "starts");
  const Tensor left = copy_of(checked(x, counts_, all, at::kLong, "counts"));
  std::vector<Tensor> kept;
  const auto recur = [&](int64_t i, const Tensor& z, const std::vector<Tensor>& weights) {
    const FixedTensors pass = states.pass(*blocks, i, {resets, batch_sizes}, z, weights, steps, true, true);
    FixedInverse<float> s;
    pass.fill(s);
    s.words = read<uint32_t>(words);
    s.words_size = words.numel();
    s.streams = streams;
    s.starts = read<int64_t>(starts) + i * streams;
    s.counts = write<int64_t>(left) + i * streams;
    LaunchOnCpu(z, true).unscan_in_vectors(s);
    return std::pair(pass.out, pass.saved);
  };
  const auto [y, bits] = through(*blocks, x, states.batch(), &kept, recur);
  states.add_values(kept);
  kept.push_back(bits);
  return {y, states.all, left, kept};
}

// y of such a pass as a function of x, h_0 and c_0, which only carry their gradients, as the last states do.
std::tuple<Tensor, Tensor, Tensor, Tensor> with_gradient(const BlocksPointer& blocks, const Tensor& x, const Tensor& h_0,
                                                         const Tensor& c_0, const Tensor& y, const std::vector<Tensor>& kept,
                                                         const Maybe& resets, const Maybe& batch_sizes) {
  const variable_list results =
      BlocksPass::apply(x, h_0, c_0, blocks, kept, StepLayout{resets, batch_sizes}, y,
                        at::zeros(h_0.sizes(), h_0.options()), at::zeros(c_0.sizes(), c_0.options()));
  return {results[0], results[1], results[2], results[3]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(irevrnn, m) {
  // Methods, not operators: PyTorch looks through all arguments of an operator that takes an object, at each call.
  m.class_<GatedBlocks>("GatedBlocks")
      .def(torch::init<const MaybeList&, const std::vector<double>&, bool, bool, std::string, std::string, std::vector<Tensor>>())
      .def("step", &step_blocks)
      .def("scan", &scan_blocks)
      .def("scan_fixed", &scan_fixed)
      .def("unscan_fixed", &unscan_fixed)
      .def("with_gradient", &with_gradient);
}

}  // namespace irevrnn
