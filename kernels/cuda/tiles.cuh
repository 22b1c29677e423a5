#pragma once
// Products by tiles of 64 x 64, for operands as stored and for bf16 operands. Both have one fixed order
// of sums along k, whatever the other sizes are, so that a row's bits do not depend on the others.
//
// A tile's product(shared, x, w, m0, m, n0, n, k, start, store) calls store(row, column, sum) once for every
// element of rows [m0, m0 + 64) and columns [n0, n0 + 64) that lies inside [m, n], with start(row, column)
// plus the sum over k of x(row, k) w(column, k). x and w are sources (products.cuh). All threads of the block
// take part; the block may call it again.

#include "kernels/cuda/products.cuh"
#include "kernels/cuda/ptx.h"

namespace qlora::cuda {

inline constexpr int kSide = 64;
// Of a multiprocessor: how many registers a thread may have follows, enough for none to spill.
inline constexpr int kBlocksAtOnce = 2;

// Sums from zero.
struct FromZero {
  __device__ __forceinline__ float operator()(int64_t, int64_t) const { return 0; }
};

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

  template <class X, class W, class Start, class Store>
  static __device__ void product(Shared& tiles, const X& x, const W& w, int64_t m0, int64_t m, int64_t n0,
                                 int64_t n, int64_t depth, const Start& start, const Store& store) {
    const int row = static_cast<int>(threadIdx.x) / 16 * 4, column = static_cast<int>(threadIdx.x) % 16 * 4;
    share_levels(tiles.levels, w);
    float sums[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool inside = m0 + row + i < m && n0 + column + j < n;
        sums[i][j] = inside ? start(m0 + row + i, n0 + column + j) : 0.0f;
      }
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

  // One of the 64 x 16 pairs of neighbours in k of an operand's slice.
  template <class Source>
  static __device__ __forceinline__ uint32_t pair_of(const float* levels, const Source& source, int p,
                                                     int64_t row0, int64_t rows, int64_t k0, int64_t depth) {
    const int row = Source::along_k ? p / 16 : p % kSide, k = 2 * (Source::along_k ? p % 16 : p / kSide);
    const bool inside = row0 + row < rows;
    const float first = inside && k0 + k < depth ? source.at(levels, row0 + row, k0 + k) : 0.0f;
    const float second = inside && k0 + k + 1 < depth ? source.at(levels, row0 + row, k0 + k + 1) : 0.0f;
    return round_pair(first, second);
  }
  template <class Source>
  static __device__ __forceinline__ void place(uint4* tile, int p, uint32_t pair) {
    const int row = Source::along_k ? p / 16 : p % kSide, at = Source::along_k ? p % 16 : p / kSide;
    reinterpret_cast<uint32_t*>(&tile[piece(row, at / 4)])[at % 4] = pair;
  }

  // A thread holds eight pairs of each operand between memory and the tile.
  template <class Source>
  static __device__ void load(uint32_t (&pairs)[8], const float* levels, const Source& source, int64_t row0,
                              int64_t rows, int64_t k0, int64_t depth) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      pairs[i] = pair_of(levels, source, static_cast<int>(threadIdx.x) + i * kThreads, row0, rows, k0, depth);
  }

  template <class Source>
  static __device__ void keep(uint4* tile, const uint32_t (&pairs)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) place<Source>(tile, static_cast<int>(threadIdx.x) + i * kThreads, pairs[i]);
  }

  // The slice of a source that computes its elements, pair by pair: held between, they would not fit.
  template <class Source>
  static __device__ void fill(uint4* tile, const float* levels, const Source& source, int64_t row0,
                              int64_t rows, int64_t k0, int64_t depth) {
#pragma unroll 1
    for (int p = static_cast<int>(threadIdx.x); p < 8 * kThreads; p += kThreads)
      place<Source>(tile, p, pair_of(levels, source, p, row0, rows, k0, depth));
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

  template <class X, class W, class Start, class Store>
  static __device__ void product(Shared& tiles, const X& x, const W& w, int64_t m0, int64_t m, int64_t n0,
                                 int64_t n, int64_t depth, const Start& start, const Store& store) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int row = warp / 2 * 32, column = warp % 2 * 32;
    share_levels(tiles.levels, w);
    __syncthreads();
    float sums[2][4][4];
    each(sums, lane, m0 + row, m, n0 + column, n, [&](float& sum, int64_t at_m, int64_t at_n, bool inside) {
      sum = inside ? start(at_m, at_n) : 0.0f;
    });
    uint32_t next_x[8], next_w[8];
    auto load_next = [&](int64_t k0) {
      if constexpr (!X::computed) load(next_x, tiles.levels, x, m0, m, k0, depth);
      if constexpr (!W::computed) load(next_w, tiles.levels, w, n0, n, k0, depth);
    };
    load_next(0);
    for (int64_t k0 = 0; k0 < depth; k0 += kSlice) {
      __syncthreads();
      if constexpr (X::computed) {
        fill(tiles.x, tiles.levels, x, m0, m, k0, depth);
      } else {
        keep<X>(tiles.x, next_x);
      }
      if constexpr (W::computed) {
        fill(tiles.w, tiles.levels, w, n0, n, k0, depth);
      } else {
        keep<W>(tiles.w, next_w);
      }
      __syncthreads();
      if (k0 + kSlice < depth) load_next(k0 + kSlice);
      multiply(sums, tiles, row, column, lane);
    }
    __syncthreads();
    each(sums, lane, m0 + row, m, n0 + column, n, [&](float& sum, int64_t at_m, int64_t at_n, bool inside) {
      if (inside) store(at_m, at_n, sum);
    });
  }

  // What the lane holds of the warp's 32 x 32, and where that is.
  template <class Body>
  static __device__ __forceinline__ void each(float (&sums)[2][4][4], int lane, int64_t row, int64_t m,
                                              int64_t column, int64_t n, const Body& body) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int64_t at_m = row + 16 * i + lane / 4 + e / 2 * 8;
          const int64_t at_n = column + 8 * j + lane % 4 * 2 + e % 2;
          body(sums[i][j][e], at_m, at_n, at_m < m && at_n < n);
        }
  }
};

}  // namespace qlora::cuda
