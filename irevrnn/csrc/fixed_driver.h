// Cuts a fixed-point scan in vectors into chunks, tiles and blocks like scan_driver.h. Every chunk of lanes has a
// bit stack of its own; the inverse goes through its blocks and tiles in exactly the reverse order.
#pragma once

#include <c10/util/Exception.h>

#include "fixed_tile.h"
#include "scan_driver.h"
#include "word_stack.h"

namespace irevrnn {

template <class Tile>
Bits& room_for(WordStack& stack, Activation g, int64_t steps, int64_t resets) {
  return stack.with_room((steps * most_words(g) + resets * words_of_reset) * Tile::width);
}

// for_each_tile in the reverse order.
template <class Tiles, class T, class Fn>
void for_each_tile_reversed(const Sizes<T>& s, const std::vector<Chunk>& chunks, int64_t begin, int64_t next,
                            const Fn& fn) {
  const int64_t block_end = std::min(s.steps, begin + s.block());
  for (auto chunk = chunks.rbegin(); chunk != chunks.rend(); ++chunk) {
    const bool last = chunk + 1 == chunks.rend();
    const int64_t after = last ? s.row(next) - s.row(begin) + chunks.back().past_last : (chunk + 1)->past_last;
    const auto with_end = [&](int64_t from, int64_t to, int64_t end) {
      Tiles::each_reversed(from, to, [&](auto tile, int64_t lane) {
        const int64_t neighbour = lane > chunk->first ? lane : after;  // what it ends at
        fn(tile, Place{lane, chunk->index, end, neighbour - decltype(tile)::width - lane});
      });
    };
    for_each_end_reversed(s, chunk->first, chunk->past_last, begin, block_end, with_end);
  }
}

template <class Tiles, class T>
void run(FixedForward<T>& s) {
  const Array<T> weights = unit_rows<T>(s, Tiles::width, s.unit_of_f().count);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  const DecayRows decays(s, Tiles::width);
  std::vector<int64_t> bad_steps(max_chunks, -1);
  s.words.resize(count_chunks(s.lanes(), Tiles::width));
  std::vector<WordStack> stacks(s.words.size());
  share_chunks(s.lanes(), Tiles::width, [&](const std::vector<Chunk>& chunks) {
    for (const Chunk& chunk : chunks) stacks[chunk.index].tail() = Tail::of(s.tails[chunk.index]);
    for (int64_t begin = 0; begin < s.steps; begin += s.block()) {
      const int64_t next = std::min(s.steps, begin + s.block());
      for_each_tile<Tiles>(s, chunks, begin, next, [&](auto tile, const Place& at) {
        using Tile = decltype(tile);
        int64_t& bad_step = bad_steps[at.chunk];
        if (bad_step >= 0 && bad_step < begin) return;
        const TileWeights<Tile> w{rows.at(at.lane % s.hidden), s.couplings};
        const Cuts<T> cuts(s, at.lane, tile.count, begin, at.end);
        Bits& bits = room_for<Tile>(stacks[at.chunk], s.activation, at.end - begin, cuts.count());
        cuts.each([&](int64_t first, int64_t past_last) {
          forget_resets(s, cuts, first, bits);
          with_coupling<Tiles>(s, tile, [&](const auto& f) {
            fixed_forward_tile(s, f, tile, w, decays, bits, at.lane, first, past_last, at.ahead, bad_step);
          });
        });
      });
      if (!s.record) {
        for (const Chunk& chunk : chunks) stacks[chunk.index].clear();
      }
    }
    for (const Chunk& chunk : chunks) {
      s.words[chunk.index] = stacks[chunk.index].all();
      s.tails[chunk.index] = stacks[chunk.index].tail().number();
    }
  });
  for (int64_t step : bad_steps) s.bad_step = earlier(s.bad_step, step);
}

template <class Tiles, class T>
void run(FixedInverse<T>& s) {
  TORCH_CHECK_VALUE(s.streams == count_chunks(s.lanes(), Tiles::width), "counts must have ",
                    count_chunks(s.lanes(), Tiles::width), " entries; got ", s.streams);
  const Array<T> weights = unit_rows<T>(s, Tiles::width, s.unit_of_f().count);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  const DecayRows decays(s, Tiles::width);
  std::vector<WordStack> stacks(s.streams);
  share_chunks(s.lanes(), Tiles::width, [&](const std::vector<Chunk>& chunks) {
    for (const Chunk& chunk : chunks) {
      const int64_t i = chunk.index;
      if (s.is_sound(i)) stacks[i] = WordStack(s.words + s.starts[i], s.counts[i]);
      stacks[i].tail() = Tail::of(s.tails[i]);
    }
    for (int64_t begin = (s.steps - 1) / s.block() * s.block(); begin >= 0; begin -= s.block()) {
      const int64_t next = std::max<int64_t>(0, begin - s.block());
      for_each_tile_reversed<Tiles>(s, chunks, begin, next, [&](auto tile, const Place& at) {
        using Tile = decltype(tile);
        const TileWeights<Tile> w{rows.at(at.lane % s.hidden), s.couplings};
        const Cuts<T> cuts(s, at.lane, tile.count, begin, at.end);
        Bits& bits = room_for<Tile>(stacks[at.chunk], s.activation, at.end - begin, cuts.count());
        cuts.each_reversed([&](int64_t first, int64_t past_last) {
          with_coupling<Tiles>(s, tile, [&](const auto& f) {
            fixed_inverse_tile(s, f, tile, w, decays, bits, at.lane, first, past_last, at.ahead);
          });
          recall_resets(s, cuts, first, bits);
        });
      });
    }
    for (const Chunk& chunk : chunks) {
      const int64_t i = chunk.index;
      s.counts[i] = !s.is_sound(i) || stacks[i].ran_dry() ? -1 : stacks[i].size();
      s.tails[i] = stacks[i].tail().number();
    }
  });
}

}  // namespace irevrnn
