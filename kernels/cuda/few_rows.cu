// y[m, out] = x wᵀ of few rows, straight from codes or from a dense matrix, on tensor cores: the decode
// class (Numerics::decode), which token steps of generation run. A weight is read once for sixteen rows, and
// is bf16(f32(level * absmax)), as in tiles; sums are in f32, but in an order of their own, which is that of
// the decoded matrix. Always sixteen rows, of which those that are not there are zero, and k is split over
// four warps whatever the sizes: a row's bits do not depend on the rows beside it.
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
  bool adds, x_in_pieces;
};

// Sixteen codes: of 4 bits, eight bytes.
template <int kBits>
struct SixteenCodes {
  uint32_t words[kBits / 2] = {};

  __device__ __forceinline__ void load(const uint8_t* p, bool in_pieces) {
    if (in_pieces) {
      if constexpr (kBits == 8) {
        const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
        words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
      } else {
        const uint2 v = __ldg(reinterpret_cast<const uint2*>(p));
        words[0] = v.x, words[1] = v.y;
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kBits / 2; ++i)
#pragma unroll 1  // or sixteen bytes wait in registers
      for (int byte = 0; byte < 4; ++byte) words[i] |= static_cast<uint32_t>(p[4 * i + byte]) << (8 * byte);
  }
};

// Where weights come from. Held: a lane's sixteen of a row and segment; two(held, i) are numbers 2i and 2i
// + 1.
template <int kBits>
struct FromCodes {
  Codes w;
  uint32_t segments_a_block;  // of codes that share an absmax
  bool in_pieces;

  struct Held {
    SixteenCodes<kBits> codes;
    float absmax = 0;
  };
  __device__ __forceinline__ float level(int i) const { return w.level(i); }
  // All lanes of the warp; `place` is the first value's, `segment` counts from the matrix's first.
  __device__ __forceinline__ Held load(int64_t place, uint32_t segment, bool inside, int lane) const {
    Held held;
    if (inside) held.codes.load(w.data + place * kBits / 8, in_pieces);
    const float own = inside && lane % 4 == 0 ? absmax_of(w, segment / segments_a_block) : 0.0f;
    held.absmax = __shfl_sync(kAllLanes, own, lane & ~3);
    return held;
  }
  __device__ __forceinline__ uint32_t two(const float* levels, const Held& held, int i) const {
    float first, second;
    if constexpr (kBits == 8) {
      const uint32_t bytes = held.codes.words[i / 2] >> (16 * (i % 2));
      first = int8_level(bytes), second = int8_level(bytes >> 8);
    } else {
      const uint32_t byte = held.codes.words[i / 4] >> (8 * (i % 4)) & 255;
      first = levels[byte >> 4], second = levels[byte & 15];
    }
    return round_pair(__fmul_rn(first, held.absmax), __fmul_rn(second, held.absmax));
  }
};

// f32 elements, rounded, or bf16 elements.
template <class T>
struct FromDense {
  const T* w;
  bool in_pieces;

  struct Held {
    uint32_t pairs[8] = {};
  };
  __device__ __forceinline__ float level(int) const { return 0; }
  __device__ __forceinline__ Held load(int64_t place, uint32_t, bool inside, int) const {
    Held held;
    if (inside) fill(held.pairs, w + place);
    return held;
  }
  __device__ __forceinline__ uint32_t two(const float*, const Held& held, int i) const {
    return held.pairs[i];
  }

 private:
  __device__ __forceinline__ void fill(uint32_t (&pairs)[8], const float* p) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* at = p + 4 * i;
      const float4 v =
          in_pieces ? __ldg(reinterpret_cast<const float4*>(at)) : float4{at[0], at[1], at[2], at[3]};
      pairs[2 * i] = round_pair(v.x, v.y);
      pairs[2 * i + 1] = round_pair(v.z, v.w);
    }
  }
  __device__ __forceinline__ void fill(uint32_t (&pairs)[8], const bf16* p) const {
    if (in_pieces) {
      const uint4 first = __ldg(reinterpret_cast<const uint4*>(p)),
                  second = __ldg(reinterpret_cast<const uint4*>(p) + 1);
      pairs[0] = first.x, pairs[1] = first.y, pairs[2] = first.z, pairs[3] = first.w;
      pairs[4] = second.x, pairs[5] = second.y, pairs[6] = second.z, pairs[7] = second.w;
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) pairs[i] = uint32_t{p[2 * i].bits} | uint32_t{p[2 * i + 1].bits} << 16;
  }
};

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

template <class Source>
__global__ void __launch_bounds__(32 * kWarps) few_rows(Source w, FewRows f) {
  auto& shared = shared_as<FewShared>();
  share_levels(shared.levels, w);
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int group = lane / 4, quarter = lane % 4;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kRows,
                column0 = static_cast<int64_t>(blockIdx.x) * kColumns;
  const auto segments = static_cast<uint32_t>(f.k / kSegment);
  float sums[kTiles][4] = {};
  for (uint32_t segment = static_cast<uint32_t>(warp); segment < segments; segment += kWarps) {
    const int64_t k = int64_t{segment} * kSegment + quarter * 16;
    typename Source::Held held[kTiles];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int64_t column = column0 + 8 * j + group;
      held[j] =
          w.load(column * f.k + k, static_cast<uint32_t>(column) * segments + segment, column < f.n, lane);
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t x[4];
      load_x(f, row0 + group, k + 4 * step, x[0], x[2]);
      load_x(f, row0 + group + 8, k + 4 * step, x[1], x[3]);
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
        mma_bf16(sums[j], x, w.two(shared.levels, held[j], 2 * step),
                 w.two(shared.levels, held[j], 2 * step + 1));
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

template <class Source>
void launch(Device& d, const Source& w, const FewRows& f) {
  d.stream.launch(few_rows<Source>, dim3(blocks_for(f.n, kColumns), blocks_for(f.m, kRows)),
                  dim3(32 * kWarps), sizeof(FewShared), w, f);
}

template <class T>
FromDense<T> dense_of(const WeightView& w) {
  return {static_cast<const T*>(w.data), aligned(w.data, sizeof(uint4))};
}

}  // namespace

bool few_rows(Device& d, const QGemm& a) {
  const int64_t n = a.w.out, k = a.w.in;
  const bool dense = a.w.format == Format::dense;
  if (k % kSegment != 0 || n * (k / kSegment) > UINT32_MAX) return false;
  if (!dense && a.w.block % kSegment != 0) return false;
  if (a.rows == 0 || n == 0) return true;
  const FewRows f{static_cast<const float*>(a.x), static_cast<float*>(a.y),    a.rows, n, k,
                  a.mode == Write::accumulate,    aligned(a.x, sizeof(float4))};
  if (!dense) {
    const Codes codes = codes_of(a.w);
    const auto segments = static_cast<uint32_t>(a.w.block / kSegment);
    const bool pieces = aligned(a.w.data, static_cast<size_t>(2 * codes.bits));
    if (codes.bits == 8) {
      launch(d, FromCodes<8>{codes, segments, pieces}, f);
    } else {
      launch(d, FromCodes<4>{codes, segments, pieces}, f);
    }
  } else if (a.w.type == DType::bf16) {
    launch(d, dense_of<bf16>(a.w), f);
  } else {
    launch(d, dense_of<float>(a.w), f);
  }
  return true;
}

}  // namespace qlora::cuda
