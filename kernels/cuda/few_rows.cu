// y[m, out] = x wᵀ of few rows, straight from 4-bit codes, on tensor cores: the decode class
// (Numerics::decode), which token steps of generation run. A weight is read once for sixteen rows, and is
// bf16(f32(level * absmax)), as in tiles; sums are in f32, but in an order of their own. Always sixteen rows,
// of which those that are not there are zero, and k is split over four warps whatever the sizes: a row's bits
// do not depend on the rows beside it.
//
// A lane of a fragment of w holds four values of k. Which ones is free, as long as x agrees: here they are
// neighbours, sixteen of a segment of 64 to a lane, so that a lane reads its codes in one piece.

#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.h"

namespace qlora::cuda {
namespace {

constexpr int kRows = 16, kTiles = 2, kColumns = 8 * kTiles, kWarps = 4, kSegment = 64;

struct FewShared {
  float levels[16];
  float sums[kWarps][kRows][kColumns];
};

struct FewRows {
  const float* x;
  float* y;
  int64_t m, n, k;
  uint32_t segments_a_block;  // of codes that share an absmax
  bool adds, codes_in_pieces, x_in_pieces;
};

// Eight bytes of codes.
__device__ __forceinline__ uint2 load_codes(const uint8_t* p, bool in_pieces) {
  if (in_pieces) return __ldg(reinterpret_cast<const uint2*>(p));
  uint2 v{0, 0};
  for (int i = 0; i < 4; ++i) {
    v.x |= static_cast<uint32_t>(p[i]) << (8 * i);
    v.y |= static_cast<uint32_t>(p[4 + i]) << (8 * i);
  }
  return v;
}

// Four values of a row of x as two pairs; zeros for a row that is not there.
__device__ __forceinline__ void load_x(const FewRows& f, int64_t row, int64_t k, uint32_t& first,
                                       uint32_t& second) {
  first = second = 0;
  if (row >= f.m) return;
  const float* p = f.x + row * f.k + k;
  const float4 v = f.x_in_pieces ? *reinterpret_cast<const float4*>(p) : float4{p[0], p[1], p[2], p[3]};
  first = round_pair(v.x, v.y);
  second = round_pair(v.z, v.w);
}

// The two weights of a byte.
__device__ __forceinline__ uint32_t weights_of(const float* levels, uint32_t byte, float absmax) {
  return round_pair(__fmul_rn(levels[byte >> 4], absmax), __fmul_rn(levels[byte & 15], absmax));
}

__global__ void __launch_bounds__(32 * kWarps) few_rows(Codes w, FewRows f) {
  auto& shared = shared_as<FewShared>();
  if (threadIdx.x < 16) shared.levels[threadIdx.x] = w.levels[threadIdx.x];
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int group = lane / 4, quarter = lane % 4;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kRows,
                column0 = static_cast<int64_t>(blockIdx.x) * kColumns;
  const auto segments = static_cast<uint32_t>(f.k / kSegment);
  float sums[kTiles][4] = {};
  for (uint32_t segment = static_cast<uint32_t>(warp); segment < segments; segment += kWarps) {
    const int64_t k = int64_t{segment} * kSegment + quarter * 16;
    uint2 codes[kTiles];
    float absmax[kTiles];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int64_t column = column0 + 8 * j + group;
      const bool inside = column < f.n;
      codes[j] = inside ? load_codes(w.data + (column * f.k + k) / 2, f.codes_in_pieces) : uint2{0, 0};
      const auto of_all = static_cast<uint32_t>(column) * segments + segment;
      const float own = inside && quarter == 0 ? absmax_of(w, of_all / f.segments_a_block) : 0.0f;
      absmax[j] = __shfl_sync(kAllLanes, own, lane & ~3);
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t x[4];
      load_x(f, row0 + group, k + 4 * step, x[0], x[2]);
      load_x(f, row0 + group + 8, k + 4 * step, x[1], x[3]);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const uint32_t two = (step < 2 ? codes[j].x : codes[j].y) >> (16 * (step % 2));
        mma_bf16(sums[j], x, weights_of(shared.levels, two & 255, absmax[j]),
                 weights_of(shared.levels, two >> 8 & 255, absmax[j]));
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      shared.sums[warp][group + e / 2 * 8][8 * j + 2 * quarter + e % 2] = sums[j][e];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += 32 * kWarps) {
    const int row = i / kColumns, column = i % kColumns;
    if (row0 + row >= f.m || column0 + column >= f.n) continue;
    const auto part = [&](int of) { return shared.sums[of][row][column]; };
    const float sum = (part(0) + part(1)) + (part(2) + part(3));
    float& y = f.y[(row0 + row) * f.n + column0 + column];
    y = f.adds ? y + sum : sum;
  }
}

}  // namespace

bool few_rows(Device& d, const QGemm& a) {
  const int64_t n = a.w.out, k = a.w.in;
  if (k % kSegment != 0 || a.w.block % kSegment != 0 || n * (k / kSegment) > UINT32_MAX) return false;
  if (a.rows == 0 || n == 0) return true;
  const FewRows f{static_cast<const float*>(a.x),
                  static_cast<float*>(a.y),
                  a.rows,
                  n,
                  k,
                  static_cast<uint32_t>(a.w.block / kSegment),
                  a.mode == Write::accumulate,
                  aligned(a.w.data, sizeof(uint2)),
                  aligned(a.x, sizeof(float4))};
  d.stream.launch(few_rows, dim3(blocks_for(n, kColumns), blocks_for(a.rows, kRows)), dim3(32 * kWarps),
                  sizeof(FewShared), codes_of(a.w), f);
  return true;
}

}  // namespace qlora::cuda
