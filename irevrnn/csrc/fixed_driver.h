// Cuts a fixed-point scan in vectors into chunks, tiles and blocks like scan_driver.h. Every chunk of lanes has a
// bit stack of its own; the inverse goes through its blocks and tiles in exactly the reverse order.
#pragma once

#include <c10/util/Exception.h>

#include "fixed_tile.h"
#include "scan_driver.h"
#include "word_stack.h"

namespace irevrnn {

// m, shift and sign of each unit's decay (decay.h), continued periodically like unit_rows.
template <class T>
std::vector<int32_t> decay_rows(const Sizes<T>& s, int width) {
  const int64_t stride = s.hidden + width;
  std::vector<int32_t> rows(3 * stride);
  for (int64_t i = 0; i < stride; ++i) {
    const Decay d = decay_of(s.u[i % s.hidden]);
    rows[i] = d.m;
    rows[stride + i] = d.shift;
    rows[2 * stride + i] = d.sign;
  }
  return rows;
}

template <class Tile>
Bits& room_for(WordStack& stack, Activation g, int64_t steps, int64_t resets) {
  return stack.with_room((steps * most_words(g) + resets * words_of_reset) * Tile::width);
}

template <class Tiles, class T>
void run(FixedForward<T>& s) {
  const Array<T> weights = unit_rows<T>(s, Tiles::width, s.unit.count);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  const std::vector<int32_t> of_units = decay_rows(s, Tiles::width);
  const DecayRows decays{of_units.data(), s.hidden + Tiles::width};
  std::vector<int64_t> bad_steps(max_chunks, -1);
  s.words.resize(count_chunks(s.lanes(), Tiles::width));
  for_each_chunk(s.lanes(), Tiles::width, [&](const Chunk& chunk) {
    WordStack stack;
    stack.tail() = Tail::of(s.tails[chunk.index]);
    for (int64_t begin = 0; begin < s.steps && bad_steps[chunk.index] < 0; begin += s.block()) {
      const int64_t end = std::min(s.steps, begin + s.block());
      for_each_end(s, chunk.first, chunk.past_last, begin, end, [&](int64_t from, int64_t to, int64_t last) {
        Tiles::each(from, to, [&](auto tile, int64_t lane) {
          using Tile = decltype(tile);
          const TileWeights<Tile> w{rows.at(lane % s.hidden), s.couplings};
          const Cuts<T> cuts(s, lane, tile.count, begin, last);
          Bits& bits = room_for<Tile>(stack, s.activation, last - begin, cuts.count());
          cuts.each([&](int64_t first, int64_t past_last) {
            forget_resets(s, cuts, first, bits);
            with_coupling<Tiles>(s, tile, [&](const auto& f) {
              fixed_forward_tile(s, f, tile, w, decays, bits, lane, first, past_last, bad_steps[chunk.index]);
            });
          });
        });
      });
      if (!s.record) stack.clear();
    }
    s.words[chunk.index] = stack.all();
    s.tails[chunk.index] = stack.tail().number();
  });
  for (int64_t step : bad_steps) s.bad_step = earlier(s.bad_step, step);
}

template <class Tiles, class T>
void run(FixedInverse<T>& s) {
  TORCH_CHECK_VALUE(s.streams == count_chunks(s.lanes(), Tiles::width), "counts must have ",
                    count_chunks(s.lanes(), Tiles::width), " entries; got ", s.streams);
  const Array<T> weights = unit_rows<T>(s, Tiles::width, s.unit.count);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  const std::vector<int32_t> of_units = decay_rows(s, Tiles::width);
  const DecayRows decays{of_units.data(), s.hidden + Tiles::width};
  for_each_chunk(s.lanes(), Tiles::width, [&](const Chunk& chunk) {
    const int64_t start = s.starts[chunk.index], count = s.counts[chunk.index];
    const bool sound = start >= 0 && count >= 0 && start <= s.words_size && count <= s.words_size - start;
    WordStack stack(s.words + (sound ? start : 0), sound ? count : 0);
    stack.tail() = Tail::of(s.tails[chunk.index]);
    for (int64_t begin = (s.steps - 1) / s.block() * s.block(); begin >= 0; begin -= s.block()) {
      const int64_t end = std::min(s.steps, begin + s.block());
      for_each_end_reversed(s, chunk.first, chunk.past_last, begin, end, [&](int64_t from, int64_t to, int64_t last) {
        Tiles::each_reversed(from, to, [&](auto tile, int64_t lane) {
          using Tile = decltype(tile);
          const TileWeights<Tile> w{rows.at(lane % s.hidden), s.couplings};
          const Cuts<T> cuts(s, lane, tile.count, begin, last);
          Bits& bits = room_for<Tile>(stack, s.activation, last - begin, cuts.count());
          cuts.each_reversed([&](int64_t first, int64_t past_last) {
            with_coupling<Tiles>(s, tile, [&](const auto& f) {
              fixed_inverse_tile(s, f, tile, w, decays, bits, lane, first, past_last);
            });
            recall_resets(s, cuts, first, bits);
          });
        });
      });
    }
    s.counts[chunk.index] = !sound || stack.ran_dry() ? -1 : stack.size();
    s.tails[chunk.index] = stack.tail().number();
  });
}

}  // namespace irevrnn
