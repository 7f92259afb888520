// The work whose rates roofline.py measures: arithmetic in vectors, whose results nobody needs.
#include <torch/library.h>

#include "packs.h"

namespace irevrnn {
namespace {

using at::Tensor;

template <int N>
IREVRNN_INLINE Pack<N> load_pack(const float* from) {
  return make_pack<N>([&](auto i) { return load_vector(from + i.value * vector_lanes); });
}

template <int N>
IREVRNN_INLINE void store_pack(float* to, const Pack<N>& x) {
  each<N>([&](auto i) { store_vector(to + i.value * vector_lanes, x.part[i.value]); });
}

// Calls fn(first number) for each pack of N vectors.
template <int N, class Fn>
void each_pack(Tensor& x, const Fn& fn) {
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat && x.is_contiguous(),
                    "x must be contiguous, float32; got ", x.scalar_type());
  constexpr int64_t width = N * vector_lanes;
  TORCH_CHECK_VALUE(x.numel() % width == 0, "x must have a multiple of ", width, " numbers; got ",
                    x.numel());
  float* numbers = x.mutable_data_ptr<float>();
  for (float* end = numbers + x.numel(); numbers < end; numbers += width) fn(numbers);
}

// The couplings' tanh, over and over: packs are independent of each other.
void repeat_tanh(Tensor x, int64_t passes) {
  for (int64_t pass = 0; pass < passes; ++pass) {
    each_pack<8>(x, [](float* at) { store_pack(at, activate_coupling<Activation::tanh>(load_pack<8>(at))); });
  }
}

// Multiply-adds in registers: as many chains at once as hide the latency of each.
void repeat_multiply_add(Tensor x, int64_t passes) {
  const Vector half = broadcast<Vector>(0.5f), one = broadcast<Vector>(1.0f);
  each_pack<12>(x, [&](float* at) {
    Pack<12> chains = load_pack<12>(at);
    for (int64_t pass = 0; pass < passes; ++pass) {
      chains = make_pack<12>([&](auto i) { return fma(chains.part[i.value], half, one); });
    }
    store_pack(at, chains);
  });
}

}  // namespace

TORCH_LIBRARY(irevrnn_rates, m) {
  m.def("repeat_tanh(Tensor(a!) x, int passes) -> ()");
  m.def("repeat_multiply_add(Tensor(a!) x, int passes) -> ()");
}

TORCH_LIBRARY_IMPL(irevrnn_rates, CPU, m) {
  m.impl("repeat_tanh", &repeat_tanh);
  m.impl("repeat_multiply_add", &repeat_multiply_add);
}

}  // namespace irevrnn
