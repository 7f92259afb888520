// The fixed-point operators: fixed_scan, its exact inverse fixed_unscan, and their gradient.
#include <torch/library.h>

#include "fixed_scan.h"
#include "op_inputs.h"

namespace irevrnn {
namespace {

template <class T, class Problem>
void launch(Problem& s, bool vectorize) {
  if (s.lanes() == 0) return;
  if constexpr (std::is_same_v<T, float>) {
    if (vectorize) return fixed_scan_vector(s);
  }
  fixed_scan_scalar<T>(s);
}

void check_invertible(c10::string_view activation) {
  TORCH_CHECK_VALUE(activation == "identity" || activation == "leaky_relu" || activation == "relu",
                    "activation must be identity, leaky_relu or relu in fixed point; got ", activation);
}

// Copies of states that a kernel brings from one end of the sequence to the other.
struct LongStates {
  Tensor h, c, s;

  LongStates(const Tensor& z, const Tensor& h, const Tensor& c, const Tensor& s)
      : h(copy(z, h, "h")), c(copy(z, c, "c")), s(copy(z, s, "s")) {}

  static Tensor copy(const Tensor& z, const Tensor& x, const char* name) {
    check_shape(x, z.sizes().slice(1), name);
    TORCH_CHECK_VALUE(x.scalar_type() == at::kLong && x.device() == z.device(), name,
                      " must be int64 on the device of z; got ", x.scalar_type(), " on ", x.device());
    return x.clone(at::MemoryFormat::Contiguous);
  }
  States<int64_t> data() const {
    return {h.mutable_data_ptr<int64_t>(), c.mutable_data_ptr<int64_t>(), s.mutable_data_ptr<int64_t>()};
  }
};

std::vector<int64_t> values_shape(const Tensor& z, const Tensor& a) {
  return {z.size(0), 2 * a.size(0), z.size(1), z.size(2)};
}

// All stacks behind one another, and the number of words of each.
std::tuple<Tensor, Tensor> pack_words(const std::vector<std::vector<uint16_t>>& stacks) {
  int64_t total = 0;
  for (const auto& stack : stacks) total += stack.size();
  Tensor words = at::empty({total}, at::kShort);
  Tensor counts = at::empty({static_cast<int64_t>(stacks.size())}, at::kLong);
  auto* to = reinterpret_cast<uint16_t*>(words.mutable_data_ptr<int16_t>());
  int64_t* count = counts.mutable_data_ptr<int64_t>();
  for (const auto& stack : stacks) {
    to = std::copy(stack.begin(), stack.end(), to);
    *count++ = stack.size();
  }
  return {words, counts};
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Results fixed_scan(const Tensor& z_, const Tensor& h_0, const Tensor& c_0, const Tensor& s_0,
                   const Tensor& u, const Tensor& a, const Tensor& b, c10::string_view activation,
                   c10::string_view coupling_activation, bool record, bool hold,
                   bool vectorize) {
  check_invertible(activation);
  const Layout layout(z_);
  const Weights weights(z_, u, a, b);
  const LongStates states(z_, h_0, c_0, s_0);
  const Tensor z = z_.contiguous();
  Tensor out = fresh(z.sizes(), z.options());
  Tensor values = hold ? fresh(values_shape(z, a), z.options()) : fresh({0}, z.options());
  Tensor bad_step = at::empty({}, at::kLong);
  Tensor words, counts;
  for_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    FixedForward<T> s;
    fill_sizes<T>(s, layout, weights, activation, coupling_activation, 0);
    s.z = z.const_data_ptr<T>();
    s.states = states.data();
    s.record = record;
    s.out = out.mutable_data_ptr<T>();
    s.values = hold ? values.mutable_data_ptr<T>() : nullptr;
    launch<T>(s, vectorize);
    std::tie(words, counts) = pack_words(s.words);
    *bad_step.mutable_data_ptr<int64_t>() = s.bad_step;
  });
  return {out, states.h, states.c, states.s, words, counts, values, bad_step};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> fixed_unscan(
    const Tensor& z_, const Tensor& h_n, const Tensor& c_n, const Tensor& s_n, const Tensor& words_,
    const Tensor& starts_, const Tensor& counts_, const Tensor& u, const Tensor& a, const Tensor& b,
    c10::string_view activation, c10::string_view coupling_activation, bool vectorize) {
  check_invertible(activation);
  const Layout layout(z_);
  const Weights weights(z_, u, a, b);
  const LongStates states(z_, h_n, c_n, s_n);
  const Tensor z = z_.contiguous(), words = words_.contiguous(), starts = starts_.contiguous();
  const Tensor counts = counts_.clone(at::MemoryFormat::Contiguous);
  TORCH_CHECK_VALUE(words.scalar_type() == at::kShort && words.dim() == 1, "words must be (N,) int16");
  TORCH_CHECK_VALUE(starts.scalar_type() == at::kLong && counts.scalar_type() == at::kLong &&
                        starts.dim() == 1 && counts.sizes() == starts.sizes(),
                    "starts and counts must be int64 of one shape");
  Tensor out = fresh(z.sizes(), z.options());
  Tensor values = fresh(values_shape(z, a), z.options());
  for_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    FixedInverse<T> s;
    fill_sizes<T>(s, layout, weights, activation, coupling_activation, 0);
    s.z = z.const_data_ptr<T>();
    s.states = states.data();
    s.words = reinterpret_cast<const uint16_t*>(words.const_data_ptr<int16_t>());
    s.starts = starts.const_data_ptr<int64_t>();
    s.counts = counts.mutable_data_ptr<int64_t>();
    s.out = out.mutable_data_ptr<T>();
    s.values = values.mutable_data_ptr<T>();
    s.streams = counts.size(0);
    s.words_size = words.size(0);
    launch<T>(s, vectorize);
  });
  return {out, states.h, states.c, states.s, counts, values};
}

}  // namespace

// They have no fake tensors: how many words a pass leaves depends on its data, and the strategies that use
// them run chunk by chunk, which torch.compile(fullgraph=True) is not promised for.
TORCH_LIBRARY_FRAGMENT(irevrnn, m) {
  m.def(
      "fixed_scan(Tensor z, Tensor h_0, Tensor c_0, Tensor s_0, Tensor u, Tensor a, Tensor b, "
      "str activation, str coupling_activation, bool record, bool hold, bool vectorize) "
      "-> (Tensor out, Tensor h_n, Tensor c_n, Tensor s_n, Tensor words, Tensor counts, "
      "Tensor values, Tensor bad_step)");
  m.def(
      "fixed_unscan(Tensor z, Tensor h_n, Tensor c_n, Tensor s_n, Tensor words, Tensor starts, "
      "Tensor counts, Tensor u, Tensor a, Tensor b, str activation, str coupling_activation, "
      "bool vectorize) -> (Tensor out, Tensor h_0, Tensor c_0, Tensor s_0, Tensor counts_left, "
      "Tensor values)");
}

TORCH_LIBRARY_IMPL(irevrnn, CPU, m) {
  m.impl("fixed_scan", &fixed_scan);
  m.impl("fixed_unscan", &fixed_unscan);
}

}  // namespace irevrnn
