// Cuts a scan into chunks of lanes for the threads, and each chunk into tiles and blocks of steps.
#pragma once

#include "parallel.h"

#include <algorithm>
#include <vector>

#include "scan_tile.h"

namespace irevrnn {

// The cut does not depend on the number of threads, nor do the bits of the result, as chunks are summed in order.
constexpr int64_t max_chunks = 16;
// Lanes of the smallest chunk of a backward pass, and of the widest tile: nor do they depend on the width of vectors.
constexpr int summed_lanes = 64;

inline int64_t chunk_size(int64_t lanes, int width) {
  const int64_t least = std::max<int64_t>(1, (lanes + max_chunks - 1) / max_chunks);
  return (least + width - 1) / width * width;
}

inline int64_t count_chunks(int64_t lanes, int width) {
  const int64_t size = chunk_size(lanes, width);
  return (lanes + size - 1) / size;
}

struct Chunk {
  int64_t index, first, past_last;  // lanes
};

// Calls fn(chunks) on several threads, with those of each in the order of memory. A thread gets neighbours in
// the order first, last, second, last but one, ...: packed sequences get shorter from chunk to chunk.
template <class Fn>
void share_chunks(int64_t lanes, int width, const Fn& fn) {
  const int64_t size = chunk_size(lanes, width), count = count_chunks(lanes, width);
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    std::vector<Chunk> chunks;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t index = i % 2 == 0 ? i / 2 : count - 1 - i / 2;
      chunks.push_back({index, index * size, std::min(lanes, (index + 1) * size)});
    }
    std::sort(chunks.begin(), chunks.end(), [](const Chunk& a, const Chunk& b) { return a.index < b.index; });
    fn(chunks);
  });
}

// A tile of a block: its lanes, their chunk, the step where they end, and how far on the numbers lie that come next.
struct Place {
  int64_t lane, count, chunk, end, ahead;
};

// The tiles of a thread in the block from step `begin` on, as they lie in memory; those of shorter sequences end before it.
template <class Tiles, class T>
std::vector<Place> places_in(const Sizes<T>& s, const std::vector<Chunk>& chunks, int64_t begin) {
  std::vector<Place> places;
  for (const Chunk& chunk : chunks) {
    int64_t lane = chunk.first;
    for (int64_t end = std::min(s.steps, begin + usual_interval); end > begin; --end) {
      const int64_t past_last = std::min(chunk.past_last, s.lanes_at(end - 1));
      for (int64_t count; lane < past_last; lane += count) {
        count = Tiles::fitting(past_last - lane);
        places.push_back({lane, count, chunk.index, end, 0});
      }
    }
  }
  return places;
}

// Calls fn(tile, place, begin) for the tiles of a thread in all blocks, which begin at step `begin`, forwards or, where they
// are negative, backwards. Tiles: which there are (VectorTiles in vector_tiles.h).
template <class Tiles, int blocks = 1, int tiles = 1, class T, class Fn>
void for_each_tile(const Sizes<T>& s, const std::vector<Chunk>& chunks, const Fn& fn) {
  const int64_t last = (s.steps - 1) / usual_interval * usual_interval, step = blocks * usual_interval;
  for (int64_t begin = blocks > 0 ? 0 : last; begin >= 0 && begin <= last; begin += step) {
    std::vector<Place> places = places_in<Tiles>(s, chunks, begin);
    if (places.empty()) continue;
    if (tiles < 0) std::reverse(places.begin(), places.end());
    for (size_t i = 0; i + 1 < places.size(); ++i) places[i].ahead = places[i + 1].lane - places[i].lane;
    const int64_t next = std::clamp<int64_t>(begin + step, 0, s.steps);
    places.back().ahead = s.row(next) - s.row(begin) + places.front().lane - places.back().lane;
    for (const Place& place : places) {
      Tiles::with_tile(place.count, [&](auto tile) { fn(tile, place, begin); });
    }
  }
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

// Calls fn(i, unit, count) for the parts of places begin to end, of which every H-th is that of unit 0: i is counted from `begin`.
template <class Fn>
void for_each_period(int64_t begin, int64_t end, int64_t hidden, const Fn& fn) {
  for (int64_t at = begin, next; at < end; at = next) {
    next = std::min(end, (at / hidden + 1) * hidden);
    fn(at - begin, at % hidden, next - at);
  }
}

template <class T>
Array<T> unit_rows(const Sizes<T>& s, int width) {
  const int64_t stride = s.hidden + width;
  Array<T> rows((1 + 2 * s.couplings) * stride);
  if (s.angle) return rows;  // there are no weights
  const WeightRows<const T> weights{s.u, s.a, s.b, s.hidden, s.couplings};
  for (int64_t i = 0; i < 1 + 2 * s.couplings; ++i) {
    for_each_period(0, stride, s.hidden, [&](int64_t first, int64_t, int64_t count) {
      std::copy_n(weights.row(i), count, rows.data() + i * stride + first);
    });
  }
  return rows;
}

// Calls fn(f), which is compiled into whole tiles alone: the others take little of a scan, and the compiler longer for each.
template <class Tiles, class T, class Tile, class Fn>
IREVRNN_INLINE void with_coupling(const Sizes<T>& s, Tile, const Fn& fn) {
  if constexpr (Tile::width == Tiles::width) {
    with_activation(s.coupling_activation, [&](auto f) { fn(CompiledActivation<f.value>{}); });
  } else {
    fn(ChosenActivation{s.coupling_activation});
  }
}

// Calls fn(the cell of a tile, constant<whether steps are replayed>).
template <class Tiles, class T, class Tile, class Fn>
IREVRNN_INLINE void with_cell(const Sizes<T>& s, Tile tile, UnitRows<const T> weights, T* gradients, const Fn& fn) {
  if (s.angle) return fn(TurningCell{}, constant<true>{});
  with_coupling<Tiles>(s, tile, [&]<class F>(const F& f) {
    with_keeping(s, [&](auto keep_all) {
      const CouplingCell<keep_all.value, F, T> cell{f, weights, s.couplings, 2 * s.couplings, gradients};
      fn(cell, constant<!keep_all.value>{});
    });
  });
}

template <class Tiles, class T>
void run(const Forward<T>& s) {
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  share_chunks(s.lanes(), Tiles::width, [&](const std::vector<Chunk>& chunks) {
    for (const Chunk& chunk : chunks) {
      start_from(s.h_0, s.h_n, chunk.first, chunk.past_last);
      start_from(s.c_0, s.c_n, chunk.first, chunk.past_last);
    }
    for_each_tile<Tiles>(s, chunks, [&](auto tile, const Place& at, int64_t begin) {
      const Cuts<T> cuts(s, at.lane, tile.count, begin, at.end);
      cuts.each([&](int64_t first, int64_t past_last) {
        cuts.clear(first, s.h_n + at.lane);
        cuts.clear(first, s.c_n + at.lane);
        with_cell<Tiles, T>(s, tile, rows.at(at.lane % s.hidden), nullptr, [&]<class Cell>(const Cell& cell, auto) {
          each_part<Cell::turns>(tile, [&](auto part, int i) {
            forward_tile(s, cell.at(i), part, at.lane + i, first, past_last, at.ahead);
          });
        });
      });
    });
  });
}

template <class Tiles, class T>
void run(const Backward<T>& s) {
  static_assert(summed_lanes % Tiles::width == 0);
  const int count = s.angle ? 0 : 1 + 2 * s.couplings;  // rows of weights
  const Array<T> weights = unit_rows(s, Tiles::width);
  const UnitRows<const T> rows{weights.data(), s.hidden + Tiles::width};
  const int64_t chunks_in_all = count_chunks(s.lanes(), summed_lanes);
  Array<T> totals(chunks_in_all * count * s.hidden);  // one set of rows a chunk

  share_chunks(s.lanes(), summed_lanes, [&](const std::vector<Chunk>& chunks) {
    Array<T> scratch(usual_interval * std::max(1, count) * Tiles::width);
    Array<T> sums(count * Tiles::width);
    for (const Chunk& chunk : chunks) {
      start_from(s.grad_h_n, s.grad_h_0, chunk.first, chunk.past_last);
      start_from(s.grad_c_n, s.grad_c_0, chunk.first, chunk.past_last);
    }
    for_each_tile<Tiles, -1>(s, chunks, [&](auto tile, const Place& at, int64_t begin) {
      using Tile = decltype(tile);
      const int64_t unit = at.lane % s.hidden;
      // Summing a block on its own first keeps rounding errors from growing with T.
      std::fill(sums.begin(), sums.end(), T(0));
      with_cell<Tiles, T>(s, tile, rows.at(unit), sums.data(), [&](const auto& cell, auto replays) {
        backward_tile<replays.value>(s, cell, tile, at.lane, begin, at.end, at.ahead, scratch.data());
      });
      T* total = totals.data() + at.chunk * count * s.hidden;
      for_each_period(unit, unit + at.count, s.hidden, [&](int64_t lane, int64_t of, int64_t units) {
        for (int i = 0; i < count; ++i) {
          for (int64_t j = 0; j < units; ++j) total[i * s.hidden + of + j] += sums[i * Tile::width + lane + j];
        }
      });
    });
  });

  const WeightRows<T> gradients{s.grad_u, s.grad_a, s.grad_b, s.hidden, s.couplings};
  for (int64_t i = 0; i < count; ++i) {
    T* to = gradients.row(i);
    std::fill(to, to + s.hidden, T(0));
    for (int64_t chunk = 0; chunk < chunks_in_all; ++chunk) {
      const T* sums = totals.data() + (chunk * count + i) * s.hidden;
      for (int64_t j = 0; j < s.hidden; ++j) to[j] += sums[j];
    }
  }
}

}  // namespace irevrnn
