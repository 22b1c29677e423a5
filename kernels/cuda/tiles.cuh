#pragma once
// Products by tiles of 64 x 64, for operands as stored and for bf16 operands. Both have one fixed order
// of sums along k, whatever the other sizes are, so that a row's bits do not depend on the others.
//
// A tile's product(shared, x, w, m0, m, n0, n, k, store) calls store(row, column, sum) once for every element
// of rows [m0, m0 + 64) and columns [n0, n0 + 64) that lies inside [m, n], with sum over k of x(row, k)
// w(column, k). x and w are sources (products.cuh). All threads of the block take part; the block may call it
// again.

#include "kernels/cuda/products.cuh"
#include "kernels/cuda/ptx.h"

namespace qlora::cuda {

inline constexpr int kSide = 64;
// Of a multiprocessor: how many registers a thread may have follows, enough for none to spill.
inline constexpr int kBlocksAtOnce = 2;

// f32 by fused multiply-adds. A thread computes 4 x 4 elements.
struct PlainTile {
  static constexpr int kThreads = 256, kDepth = 16;
  struct Shared {
    float x[kDepth][kSide + 1], w[kDepth][kSide + 1];  // + 1: columns fall into different banks
    float levels[16];
  };

  // Fills tile[k][row] with rows [row0, row0 + 64) and depth [k0, k0 + 16); zero outside.
  template <class Source>
  static __device__ void fill(float (&tile)[kDepth][kSide + 1], const float* levels, const Source& source,
                              int64_t row0, int64_t rows, int64_t k0, int64_t depth) {
    for (int i = static_cast<int>(threadIdx.x); i < kSide * kDepth; i += kThreads) {
      const int row = Source::along_k ? i / kDepth : i % kSide, k = Source::along_k ? i % kDepth : i / kSide;
      const bool inside = row0 + row < rows && k0 + k < depth;
      tile[k][row] = inside ? source.at(levels, row0 + row, k0 + k) : 0.0f;
    }
  }

  template <class X, class W, class Store>
  static __device__ void product(Shared& tiles, const X& x, const W& w, int64_t m0, int64_t m, int64_t n0,
                                 int64_t n, int64_t depth, const Store& store) {
    const int row = static_cast<int>(threadIdx.x) / 16 * 4, column = static_cast<int>(threadIdx.x) % 16 * 4;
    if (threadIdx.x < 16) tiles.levels[threadIdx.x] = w.level(static_cast<int>(threadIdx.x));
    float sums[4][4] = {};
    for (int64_t k0 = 0; k0 < depth; k0 += kDepth) {
      __syncthreads();
      fill(tiles.x, tiles.levels, x, m0, m, k0, depth);
      fill(tiles.w, tiles.levels, w, n0, n, k0, depth);
      __syncthreads();
      for (int k = 0; k < kDepth; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j)
            sums[i][j] = fmaf(tiles.x[k][row + i], tiles.w[k][column + j], sums[i][j]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (m0 + row + i < m && n0 + column + j < n) store(m0 + row + i, n0 + column + j, sums[i][j]);
  }
};

// bf16 operands on tensor cores. Four warps, each 32 x 32; 32 values of k at a time, the next on their way.
struct MmaTile {
  static constexpr int kThreads = 128, kSlice = 32;
  struct Shared {
    uint4 x[kSide * kSlice / 8], w[kSide * kSlice / 8];  // bf16, eight a piece, rows of four pieces
    float levels[16];
  };

  // Where piece c (0..3) of a row lies: two rows share 128 bytes, and pieces are permuted so that the eight
  // rows that one ldmatrix reads fall into eight different groups of banks.
  static __device__ __forceinline__ int piece(int row, int c) {
    const int line = row / 2, place = row % 2 * 4 + c;
    return line * 8 + (place ^ (line % 8));
  }

  // A thread holds eight pairs of neighbours in k of each operand between memory and the tile.
  template <class Source>
  static __device__ void load(uint32_t (&pairs)[8], const float* levels, const Source& source, int64_t row0,
                              int64_t rows, int64_t k0, int64_t depth) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int p = static_cast<int>(threadIdx.x) + i * kThreads;  // of 64 rows of 16 pairs
      const int row = Source::along_k ? p / 16 : p % kSide, k = 2 * (Source::along_k ? p % 16 : p / kSide);
      const bool inside = row0 + row < rows;
      const float first = inside && k0 + k < depth ? source.at(levels, row0 + row, k0 + k) : 0.0f;
      const float second = inside && k0 + k + 1 < depth ? source.at(levels, row0 + row, k0 + k + 1) : 0.0f;
      pairs[i] = round_pair(first, second);
    }
  }

  template <class Source>
  static __device__ void keep(uint4* tile, const uint32_t (&pairs)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int p = static_cast<int>(threadIdx.x) + i * kThreads;
      const int row = Source::along_k ? p / 16 : p % kSide, pair = Source::along_k ? p % 16 : p / kSide;
      reinterpret_cast<uint32_t*>(&tile[piece(row, pair / 4)])[pair % 4] = pairs[i];
    }
  }

  // sums[i][j] += the 16 x 8 tiles (i, j) of the warp's 32 x 32, over the 32 values of k in shared memory.
  static __device__ void multiply(float (&sums)[2][4][4], const Shared& tiles, int row, int column,
                                  int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t x[2][4], w[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load_matrices(x[i], &tiles.x[piece(row + 16 * i + lane % 16, 2 * half + lane / 16)]);
        load_matrices(w[i],
                      &tiles.w[piece(column + 16 * i + lane % 8 + lane / 16 * 8, 2 * half + lane / 8 % 2)]);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_bf16(sums[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
    }
  }

  template <class X, class W, class Store>
  static __device__ void product(Shared& tiles, const X& x, const W& w, int64_t m0, int64_t m, int64_t n0,
                                 int64_t n, int64_t depth, const Store& store) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int row = warp / 2 * 32, column = warp % 2 * 32;
    if (threadIdx.x < 16) tiles.levels[threadIdx.x] = w.level(static_cast<int>(threadIdx.x));
    __syncthreads();
    float sums[2][4][4] = {};
    uint32_t next_x[8], next_w[8];
    load(next_x, tiles.levels, x, m0, m, 0, depth);
    load(next_w, tiles.levels, w, n0, n, 0, depth);
    for (int64_t k0 = 0; k0 < depth; k0 += kSlice) {
      __syncthreads();
      keep<X>(tiles.x, next_x);
      keep<W>(tiles.w, next_w);
      __syncthreads();
      if (k0 + kSlice < depth) {
        load(next_x, tiles.levels, x, m0, m, k0 + kSlice, depth);
        load(next_w, tiles.levels, w, n0, n, k0 + kSlice, depth);
      }
      multiply(sums, tiles, row, column, lane);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int64_t at_m = m0 + row + 16 * i + lane / 4 + e / 2 * 8;
          const int64_t at_n = n0 + column + 8 * j + lane % 4 * 2 + e % 2;
          if (at_m < m && at_n < n) store(at_m, at_n, sums[i][j][e]);
        }
  }
};

}  // namespace qlora::cuda
