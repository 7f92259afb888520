// The threads of a kernel, and how a grid of them is run: on a device where nvcc compiles this, or one after the other.
// A kernel is a Work, which a thread calls: work(thread). None waits for another, nor reads what it has written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "portable.h"
#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#else
#include "parallel.h"

#include <functional>
#endif

namespace irevrnn {

constexpr int most_threads = 128;  // in a block

struct Thread {
  int64_t block;
  int index, threads;  // in the block
  void* shared;        // scratch of the block
  IREVRNN_INLINE int64_t number() const { return block * threads + index; }
};

struct Grid {
  int64_t blocks;
  int threads;
  size_t shared;  // bytes of scratch for each block

  // At least `count` threads: those of the last block may have nothing to do.
  static Grid of(int64_t count, int threads = most_threads, size_t shared_per_thread = 0) {
    return {(count + threads - 1) / threads, threads, shared_per_thread * threads};
  }
};

#if defined(__CUDACC__)

// Blocks that must fit a multiprocessor's registers at once. Said nothing, the compiler aims higher than
// the scan gains from, and spills for it.
template <class Work>
constexpr int least_blocks = 1;
template <class Work>
  requires requires { Work::least_blocks; }
constexpr int least_blocks<Work> = Work::least_blocks;

template <class Work>
__global__ void __launch_bounds__(most_threads, least_blocks<Work>) kernel(const Work work) {
  extern __shared__ __align__(16) unsigned char shared[];
  work(Thread{static_cast<int64_t>(blockIdx.x), static_cast<int>(threadIdx.x),
              static_cast<int>(blockDim.x), shared});
}

template <class Work>
cudaError_t run_grid(const Work& work, const Grid& grid, cudaStream_t stream) {
  if (grid.blocks == 0) return cudaSuccess;
  kernel<<<static_cast<unsigned>(grid.blocks), grid.threads, grid.shared, stream>>>(work);
  return cudaGetLastError();
}

#else

template <class Work>
IREVRNN_FLATTEN void run_block(const Work& work, const Grid& grid, int64_t block, void* shared) {
  for (int i = 0; i < grid.threads; ++i) work(Thread{block, i, grid.threads, shared});
}

// Calls fn(block, scratch of grid.shared bytes) for each block, on several threads; their order as in share_chunks.
inline void for_each_block(const Grid& grid, const std::function<void(int64_t, void*)>& fn) {
  parallel_for(0, grid.blocks, 1, [&](int64_t begin, int64_t end) {
    Array<unsigned char> shared(grid.shared);
    for (int64_t i = begin; i < end; ++i) fn(i % 2 == 0 ? i / 2 : grid.blocks - 1 - i / 2, shared.data());
  });
}

template <class Work>
void run_grid(const Work& work, const Grid& grid) {
  for_each_block(grid, [&](int64_t block, void* shared) { run_block(work, grid, block, shared); });
}

#endif

}  // namespace irevrnn
