// Dense and quantized products. Two kernels, for operands as stored and for bf16 operands (tensor cores),
// each with one order of sums: along k from its first value to its last, whatever m and n are. So a row's
// bits do not depend on the others, and a product from codes has the bits of one from the decoded matrix.

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/ptx.h"

namespace qlora::cuda {
namespace {

// ---- as stored: f32, by fused multiply-adds. A thread computes 4 x 4 values of a 64 x 64 tile.

constexpr int kTile = 64, kDepth = 16, kThreads = 256;

struct PlainTiles {
  float x[kDepth][kTile + 1], w[kDepth][kTile + 1];  // + 1: columns fall into different banks
  float levels[16];
};

// Fills tile[k][row] with rows [row0, row0 + 64) and depth [k0, k0 + 16) of a matrix; zero outside.
template <class Source>
__device__ void fill(float (&tile)[kDepth][kTile + 1], const float* levels, const Source& source,
                     int64_t row0, int64_t rows, int64_t k0, int64_t depth) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += kThreads) {
    const int row = Source::along_k ? i / kDepth : i % kTile, k = Source::along_k ? i % kDepth : i / kTile;
    const bool inside = row0 + row < rows && k0 + k < depth;
    tile[k][row] = inside ? source.at(levels, row0 + row, k0 + k) : 0.0f;
  }
}

template <class X, class W>
__global__ void __launch_bounds__(kThreads) multiply_plain(X x, W w, Shape s) {
  auto& tiles = shared_as<PlainTiles>();
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kTile, n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const int row = static_cast<int>(threadIdx.x) / 16 * 4, column = static_cast<int>(threadIdx.x) % 16 * 4;
  if (threadIdx.x < 16) tiles.levels[threadIdx.x] = w.level(static_cast<int>(threadIdx.x));
  float sums[4][4] = {};
  for (int64_t k0 = 0; k0 < s.k; k0 += kDepth) {
    __syncthreads();
    fill(tiles.x, tiles.levels, x, m0, s.m, k0, s.k);
    fill(tiles.w, tiles.levels, w, n0, s.n, k0, s.k);
    __syncthreads();
    for (int k = 0; k < kDepth; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sums[i][j] = fmaf(tiles.x[k][row + i], tiles.w[k][column + j], sums[i][j]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (m0 + row + i >= s.m || n0 + column + j >= s.n) continue;
      float& y = s.y[(m0 + row + i) * s.n + n0 + column + j];
      y = s.adds ? fmaf(s.alpha, sums[i][j], y) : s.alpha * sums[i][j];
    }
}

// ---- bf16 operands: tensor cores. Four warps, each 32 x 32 of a 64 x 64 tile; 32 values of k at a time.

constexpr int kSide = 64, kSlice = 32, kWarpThreads = 128;

struct MmaTiles {
  uint4 x[kSide * kSlice / 8], w[kSide * kSlice / 8];  // bf16, eight a piece, rows of four pieces
  float levels[16];
};

// Where piece c (0..3) of a row lies: two rows share 128 bytes, and pieces are permuted so that the eight
// rows that one ldmatrix reads fall into eight different groups of banks.
__device__ __forceinline__ int piece(int row, int c) {
  const int line = row / 2, place = row % 2 * 4 + c;
  return line * 8 + (place ^ (line % 8));
}

// A thread holds four pairs of neighbours in k of each operand between memory and the tile.
template <class Source>
__device__ void load_pairs(uint32_t (&pairs)[8], const float* levels, const Source& source, int64_t row0,
                           int64_t rows, int64_t k0, int64_t depth) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int p = static_cast<int>(threadIdx.x) + i * kWarpThreads;  // of 64 rows of 16 pairs
    const int row = Source::along_k ? p / 16 : p % kSide, k = 2 * (Source::along_k ? p % 16 : p / kSide);
    const bool inside = row0 + row < rows;
    const float first = inside && k0 + k < depth ? source.at(levels, row0 + row, k0 + k) : 0.0f;
    const float second = inside && k0 + k + 1 < depth ? source.at(levels, row0 + row, k0 + k + 1) : 0.0f;
    pairs[i] = pack_bf16(first, second);
  }
}

template <class Source>
__device__ void store_pairs(uint4* tile, const uint32_t (&pairs)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int p = static_cast<int>(threadIdx.x) + i * kWarpThreads;
    const int row = Source::along_k ? p / 16 : p % kSide, pair = Source::along_k ? p % 16 : p / kSide;
    reinterpret_cast<uint32_t*>(&tile[piece(row, pair / 4)])[pair % 4] = pairs[i];
  }
}

// sums[i][j] += the 16 x 8 tiles (i, j) of the warp's 32 x 32, over the 32 values of k in shared memory.
__device__ void multiply_tiles(float (&sums)[2][4][4], const MmaTiles& tiles, int row, int column, int lane) {
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

template <class X, class W>
__global__ void __launch_bounds__(kWarpThreads) multiply_bf16(X x, W w, Shape s) {
  auto& tiles = shared_as<MmaTiles>();
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kSide, n0 = static_cast<int64_t>(blockIdx.x) * kSide;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int row = warp / 2 * 32, column = warp % 2 * 32;
  if (threadIdx.x < 16) tiles.levels[threadIdx.x] = w.level(static_cast<int>(threadIdx.x));
  __syncthreads();
  float sums[2][4][4] = {};
  uint32_t next_x[8], next_w[8];
  load_pairs(next_x, tiles.levels, x, m0, s.m, 0, s.k);
  load_pairs(next_w, tiles.levels, w, n0, s.n, 0, s.k);
  for (int64_t k0 = 0; k0 < s.k; k0 += kSlice) {
    __syncthreads();
    store_pairs<X>(tiles.x, next_x);
    store_pairs<W>(tiles.w, next_w);
    __syncthreads();
    if (k0 + kSlice < s.k) {
      load_pairs(next_x, tiles.levels, x, m0, s.m, k0 + kSlice, s.k);
      load_pairs(next_w, tiles.levels, w, n0, s.n, k0 + kSlice, s.k);
    }
    multiply_tiles(sums, tiles, row, column, lane);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t m = m0 + row + 16 * i + lane / 4 + e / 2 * 8,
                      n = n0 + column + 8 * j + lane % 4 * 2 + e % 2;
        if (m >= s.m || n >= s.n) continue;
        float& y = s.y[m * s.n + n];
        y = s.adds ? fmaf(s.alpha, sums[i][j][e], y) : s.alpha * sums[i][j][e];
      }
}

// ---- choosing

template <class X, class W>
void multiply(Device& d, const X& x, const W& w, const Shape& s, Operands operands) {
  if (s.m == 0 || s.n == 0) return;
  if (operands == Operands::bf16) {
    d.stream.launch(multiply_bf16<X, W>, dim3(blocks_for(s.n, kSide), blocks_for(s.m, kSide)),
                    dim3(kWarpThreads), sizeof(MmaTiles), x, w, s);
  } else {
    d.stream.launch(multiply_plain<X, W>, dim3(blocks_for(s.n, kTile), blocks_for(s.m, kTile)),
                    dim3(kThreads), sizeof(PlainTiles), x, w, s);
  }
}

template <class T>
void multiply_dense(Device& d, const Gemm& a, const Shape& s) {
  const auto* x = static_cast<const float*>(a.x);
  const auto* w = static_cast<const T*>(a.w);
  switch (a.layout) {
    case Layout::nt:
      return multiply(d, Dense<float, true>{x, a.k}, Dense<T, true>{w, a.k}, s, a.operands);
    case Layout::nn:
      return multiply(d, Dense<float, true>{x, a.k}, Dense<T, false>{w, a.n}, s, a.operands);
    default:
      return multiply(d, Dense<float, false>{x, a.m}, Dense<T, false>{w, a.n}, s, a.operands);
  }
}

}  // namespace

void gemm(Device& d, const Gemm& a) {
  const Shape s{static_cast<float*>(a.y),   a.m, a.n, a.k, static_cast<float>(a.alpha),
                a.mode == Write::accumulate};
  if (a.w_type == DType::bf16) return multiply_dense<bf16>(d, a, s);
  multiply_dense<float>(d, a, s);
}

void qgemm(Device& d, const QGemm& a) {
  const bool forward = a.layout == Layout::nt;
  const int64_t n = forward ? a.w.out : a.w.in, k = forward ? a.w.in : a.w.out;
  if (a.w.format == Format::dense) {
    return gemm(d, {.layout = a.layout,
                    .x = a.x,
                    .w = a.w.data,
                    .y = a.y,
                    .m = a.rows,
                    .n = n,
                    .k = k,
                    .mode = a.mode,
                    .w_type = a.w.type,
                    .operands = a.operands});
  }
  const Shape s{static_cast<float*>(a.y), a.rows, n, k, 1.0f, a.mode == Write::accumulate};
  const Dense<float, true> x{static_cast<const float*>(a.x), k};
  const Codes w = codes_of(a.w);
  if (forward) return multiply(d, x, Coded<true>{w, a.w.in}, s, a.operands);
  multiply(d, x, Coded<false>{w, a.w.in}, s, a.operands);
}

}  // namespace qlora::cuda
