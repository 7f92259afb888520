// Cuts a fixed-point scan into chunks, tiles and blocks like scan_driver.h. Every chunk of lanes has a
// bit stack of its own; the inverse goes through its blocks and tiles in exactly the reverse order.
#pragma once

#include <c10/util/Exception.h>

#include "fixed_tile.h"
#include "scan_driver.h"

namespace irevrnn {

template <class Tiles, Activation f, class T>
void run(FixedForward<T>& s) {
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  std::vector<int64_t> bad_steps(max_chunks, -1);
  s.words.resize(count_chunks(s.lanes(), Tiles::width));
  for_each_chunk(s.lanes(), Tiles::width, [&](int64_t chunk, int64_t first, int64_t past_last) {
    Words words;
    for (int64_t begin = 0; begin < s.steps && bad_steps[chunk] < 0; begin += s.block()) {
      const int64_t end = std::min(s.steps, begin + s.block());
      Tiles::each(first, past_last, [&](auto tile, int64_t lane) {
        using Tile = decltype(tile);
        const TileWeights<Tile> w{rows.at(lane % s.hidden), s.couplings};
        fixed_forward_tile<f>(s, tile, w, words, lane, begin, end, bad_steps[chunk]);
      });
      if (!s.record) words.clear();
    }
    s.words[chunk] = words.all();
  });
  for (int64_t step : bad_steps) {
    if (step >= 0 && (s.bad_step < 0 || step < s.bad_step)) s.bad_step = step;
  }
}

template <class Tiles, Activation f, class T>
void run(FixedInverse<T>& s) {
  TORCH_CHECK_VALUE(s.streams == count_chunks(s.lanes(), Tiles::width), "counts must have ",
                    count_chunks(s.lanes(), Tiles::width), " entries; got ", s.streams);
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  for_each_chunk(s.lanes(), Tiles::width, [&](int64_t chunk, int64_t first, int64_t past_last) {
    Words words;
    const int64_t start = s.starts[chunk], count = s.counts[chunk];
    if (start >= 0 && count >= 0 && start + count <= s.words_size) words.start(s.words + start, count);
    for (int64_t begin = (s.steps - 1) / s.block() * s.block(); begin >= 0; begin -= s.block()) {
      const int64_t end = std::min(s.steps, begin + s.block());
      Tiles::each_reversed(first, past_last, [&](auto tile, int64_t lane) {
        using Tile = decltype(tile);
        const TileWeights<Tile> w{rows.at(lane % s.hidden), s.couplings};
        fixed_inverse_tile<f>(s, tile, w, words, lane, begin, end);
      });
    }
    s.counts[chunk] = words.ran_dry() ? -1 : static_cast<int64_t>(words.all().size());
  });
}

template <class Tiles, Activation f, class T>
void run(const FixedBackward<T>& s) {
  run_backward<Tiles, f, false>(s, T{});
}

template <class Tiles, class Problem>
void run_fixed(Problem& s) {
  with_activation(s.coupling_activation, [&](auto f) { return run<Tiles, f.value>(s); });
}

}  // namespace irevrnn
