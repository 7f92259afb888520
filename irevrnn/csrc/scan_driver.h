// Cuts a scan into chunks of lanes for the threads, and each chunk into tiles and blocks of steps.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>

#include "aligned.h"
#include "scan_tile.h"

namespace irevrnn {

// The cut does not depend on the number of threads, and chunks are summed in order: so neither do the
// bits of the result.
constexpr int64_t max_chunks = 16;

inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

inline int64_t chunk_size(int64_t lanes, int width) {
  return round_up(std::max<int64_t>(1, (lanes + max_chunks - 1) / max_chunks), width);
}

inline int64_t count_chunks(int64_t lanes, int width) {
  const int64_t size = chunk_size(lanes, width);
  return (lanes + size - 1) / size;
}

// Calls fn(chunk, first lane, past the last lane), on several threads. A thread gets neighbours in the
// order first, last, second, last but one, ...: packed sequences get shorter from chunk to chunk.
template <class Fn>
void for_each_chunk(int64_t lanes, int width, const Fn& fn) {
  const int64_t size = chunk_size(lanes, width), chunks = count_chunks(lanes, width);
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t chunk = i % 2 == 0 ? i / 2 : chunks - 1 - i / 2;
      fn(chunk, chunk * size, std::min(lanes, (chunk + 1) * size));
    }
  });
}

// Calls fn(first, past_last, end) for the parts of a range of lanes that run to the same step in a block:
// all to its end, but for sequences that are shorter.
template <class T, class Fn>
void for_each_end(const Sizes<T>& s, int64_t first, int64_t past_last, int64_t begin, int64_t end,
                  const Fn& fn) {
  for (; end > begin && first < past_last; --end) {
    const int64_t next = std::min(past_last, s.lanes_at(end - 1));
    if (next > first) fn(first, next, end);
    first = std::max(first, next);
  }
}

// How far from the numbers of a tile those of the next lie: of its neighbour, or where it is the last of the
// lanes `from` to `to`, of the first in the block that begins at `next`.
template <class T>
int64_t distance_to_next(const Sizes<T>& s, int64_t lane, int width, int64_t from, int64_t to, int64_t begin,
                         int64_t next) {
  return lane + width < to ? width : s.row(next) - s.row(begin) + from - lane;
}

// Copies numbers [first, past_last), or zeros where there are none.
template <class T>
void start_from(const T* from, T* to, int64_t first, int64_t past_last) {
  if (from) {
    std::copy(from + first, from + past_last, to + first);
  } else {
    std::fill(to + first, to + past_last, T(0));
  }
}

// The coupling weights come multiplied by `scale`.
template <class T>
Array<T> unit_rows(const Sizes<T>& s, int width, T scale = 1) {
  const int64_t stride = s.hidden + width;
  Array<T> rows((1 + 2 * s.couplings) * stride);
  for (int64_t i = 0; i < 1 + 2 * s.couplings; ++i) {
    const T* from = i == 0 ? s.u : i <= s.couplings ? s.a + (i - 1) * s.hidden
                                                    : s.b + (i - 1 - s.couplings) * s.hidden;
    for (int64_t j = 0; j < stride; ++j) rows[i * stride + j] = from[j % s.hidden] * (i == 0 ? 1 : scale);
  }
  return rows;
}

// Tiles says how a range of lanes falls into tiles: Tiles::width, and
// Tiles::each(first, past_last, fn), which calls fn(tile, lane).
template <class Tiles, Activation f, bool keep_all, class T>
void run(const Forward<T>& s) {
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  for_each_chunk(s.lanes(), Tiles::width, [&](int64_t, int64_t first, int64_t past_last) {
    start_from(s.h_0, s.h_n, first, past_last);
    start_from(s.c_0, s.c_n, first, past_last);
    for (int64_t begin = 0; begin < s.steps; begin += s.block()) {
      const int64_t block_end = std::min(s.steps, begin + s.block());
      for_each_end(s, first, past_last, begin, block_end, [&](int64_t from, int64_t to, int64_t end) {
        Tiles::each(from, to, [&](auto tile, int64_t lane) {
          using Tile = decltype(tile);
          const TileWeights<Tile> w{rows.at(lane % s.hidden), s.couplings};
          const int64_t ahead = distance_to_next(s, lane, Tile::width, from, to, begin, block_end);
          forward_tile<f, keep_all>(s, tile, w, lane, begin, end, ahead);
        });
      });
    }
  });
}

// Adds a tile's sums (1 + 2R, width) to the chunk's rows.
template <class T>
void add_to_rows(const T* sums, UnitRows<T> rows, int count, int width) {
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < width; ++j) rows.row(i)[j] += sums[i * width + j];
  }
}

template <class Tiles, Activation f, bool keep_all, class T>
void run(const Backward<T>& s) {
  const int count = 1 + 2 * s.couplings;
  const int64_t stride = s.hidden + Tiles::width, rows_size = count * stride;
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), stride};
  Array<T> totals(max_chunks * rows_size);  // one set of rows a chunk

  for_each_chunk(s.lanes(), Tiles::width, [&](int64_t chunk, int64_t first, int64_t past_last) {
    const UnitRows<T> total{totals.data() + chunk * rows_size, stride};
    Array<T> scratch((keep_all ? 0 : s.block() * 2 * s.couplings) * Tiles::width);
    Array<T> sums(count * Tiles::width);
    start_from(s.grad_h_n, s.grad_h_0, first, past_last);
    start_from(s.grad_c_n, s.grad_c_0, first, past_last);
    for (int64_t begin = (s.steps - 1) / s.block() * s.block(); begin >= 0; begin -= s.block()) {
      const int64_t block_end = std::min(s.steps, begin + s.block());
      const int64_t next = std::max<int64_t>(0, begin - s.block());
      for_each_end(s, first, past_last, begin, block_end, [&](int64_t from, int64_t to, int64_t end) {
        Tiles::each(from, to, [&](auto tile, int64_t lane) {
          using Tile = decltype(tile);
          const TileWeights<Tile> w{rows.at(lane % s.hidden), s.couplings};
          // Summing a block on its own first keeps rounding errors from growing with T.
          std::fill(sums.begin(), sums.end(), T(0));
          const int64_t ahead = distance_to_next(s, lane, Tile::width, from, to, begin, next);
          backward_tile<f, keep_all>(s, tile, w, TileSums<Tile>{sums.data(), s.couplings}, lane, begin,
                                     end, ahead, scratch.data());
          add_to_rows(sums.data(), total.at(lane % s.hidden), count, Tile::width);
        });
      });
    }
  });

  for (int64_t i = 0; i < count; ++i) {
    T* to = i == 0 ? s.grad_u : i <= s.couplings ? s.grad_a + (i - 1) * s.hidden
                                                 : s.grad_b + (i - 1 - s.couplings) * s.hidden;
    std::fill(to, to + s.hidden, T(0));
    for (int64_t chunk = 0; chunk < max_chunks; ++chunk) {
      const T* from = totals.data() + chunk * rows_size + i * stride;
      for (int64_t j = 0; j < stride; ++j) to[j % s.hidden] += from[j];
    }
  }
}

template <class Tiles, class Problem>
void run_any(const Problem& s) {
  with_activation(s.coupling_activation, [&](auto f) {
    return s.interval == 0 ? run<Tiles, f.value, true>(s) : run<Tiles, f.value, false>(s);
  });
}

}  // namespace irevrnn
