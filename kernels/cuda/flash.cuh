#pragma once
// Attention on tensor cores, as FlashAttention-2 does it: bf16 operands, heads of 64, 80, 96, 128 or 256.
// What forward (flash.cu) and backward (flash_backward.cu) share.
//
// A block has four warps, and a warp holds 16 rows (or twice 16) of scores in registers. Keys and values, and
// in backward queries and dout, are first rounded to bf16 into rows that lie one after another (of few
// queries, when they are read); blocks read them in tiles that are counted from the first key, or query, of
// the sequence. A masked pair has weight 0 and adds exactly nothing, so that a row's bits do not depend on
// the rows beside it nor on the tiles that those need.

#include <span>
#include <type_traits>

#include "kernels/cuda/flash_sizes.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/sequences.cuh"

namespace qlora::cuda {

// Where flash_takes() (flash_sizes.h); other attention is computed in attention.cu and attention_backward.cu.
void flash(Device&, const Attention&);
void flash_backward(Device&, const AttentionBackward&);

namespace flash_parts {

inline constexpr int kThreads = 128, kWarps = 4;
inline constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;

// Queries (or keys) of one sequence that one block computes: those from `first` on.
struct Work {
  int64_t sequence, first;
};
static_assert(sizeof(Work) == kFlashWorkBytes);
// Of every sequence's queries (or keys), `rows` a block, those with the most to do first.
struct WorkList {
  const Work* all = nullptr;
  unsigned count = 0;
};
WorkList upload_work(Device&, std::span<const SequenceSpan>, bool keys, int rows);

// Keys and values in bf16, [keys of all sequences, kv_heads, head_dim].
struct Keys {
  const bf16 *k = nullptr, *v = nullptr;
};
Keys gather_keys(Device&, const Heads&, const Sequences&);

// Queries one after another of a sequence: `count` of them, the first at `position` and in row `row` of q;
// what they see lies in keys [first, last].
struct Queries {
  int64_t row;
  int position, count, first, last;
  // Whether any of them sees any of the keys [tile, tile + keys).
  __device__ __forceinline__ bool sees(int tile, int keys) const {
    return count > 0 && tile <= last && tile + keys > first;
  }
};
// At most `most` of them, from query i on.
__device__ __forceinline__ Queries queries_of(const Heads& h, const Sequence& s, int64_t i, int most) {
  const int64_t left = s.q_len - i, position = s.k_len - s.q_len + i;
  const int count = left < most ? static_cast<int>(left) : most;
  return {s.q_row + i, static_cast<int>(position), count, static_cast<int>(h.first_key(position)),
          static_cast<int>(position) + count - 1};
}

// A score that has a softcap, a bias or both, and its slope, from q·k. The tanh is good to about 2^-22 of 1.
__device__ __forceinline__ Score shaped(const Heads& h, float product, int64_t head, int distance) {
  Score s{h.scale * product, 1};
  if (h.softcap > 0) {
    const float t = 1.0f - 2.0f * reciprocal_fast(1.0f + exp2_fast(s.value * (2 * kLog2e / h.softcap)));
    s = {h.softcap * t, 1.0f - t * t};
  }
  s.value += h.bias_of(head, distance);
  return s;
}

// Rows of bf16 values in shared memory. A row takes an odd number of pieces of 16 bytes, so that the eight
// rows that ldmatrix reads in one turn lie in different banks.
template <int kRows, int kDim>
struct Tile {
  static constexpr int kPitch = kDim / 8 | 1;
  uint4 pieces[kRows * kPitch];
  __device__ __forceinline__ const uint4* at(int row, int column) const {
    return &pieces[row * kPitch + column / 8];
  }
};

// Starts copying kRows rows to the tile, of which `count` are there; the rest become zeros.
template <int kRows, int kDim>
__device__ __forceinline__ void start_rows(Tile<kRows, kDim>& tile, const bf16* rows, int64_t pitch,
                                           int count) {
  constexpr int kPieces = kDim / 8, kTogether = kPieces % 8 == 0 ? 8 : kPieces % 4 == 0 ? 4 : 2;
  constexpr int kStep = kThreads / kTogether;  // threads side by side along a row, and rows at a time
  static_assert(kRows % kStep == 0);
  const int first = static_cast<int>(threadIdx.x) / kTogether,
            piece = static_cast<int>(threadIdx.x) % kTogether;
#pragma unroll
  for (int row = first; row < first + kRows; row += kStep) {
    const bool inside = row < count;
    const bf16* from = rows + (inside ? row : 0) * pitch + piece * 8;
    uint4* to = &tile.pieces[row * Tile<kRows, kDim>::kPitch + piece];
#pragma unroll
    for (int j = 0; j < kPieces; j += kTogether) copy_async(to + j, from + 8 * j, inside ? 16 : 0);
  }
}

// Fills the tile with kRows rows of f32, rounded, of which `count` are there; the rest become zeros.
template <int kRows, int kDim>
__device__ __forceinline__ void round_rows(Tile<kRows, kDim>& tile, const float* rows, int64_t pitch,
                                           int count) {
  constexpr int kPieces = kDim / 8;
  const bool in_pieces = reinterpret_cast<uintptr_t>(rows) % sizeof(float4) == 0;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    float4 left{0, 0, 0, 0}, right = left;
    if (row < count) {
      const float* p = rows + row * pitch + piece * 8;
      left = in_pieces ? reinterpret_cast<const float4*>(p)[0] : float4{p[0], p[1], p[2], p[3]};
      right = in_pieces ? reinterpret_cast<const float4*>(p)[1] : float4{p[4], p[5], p[6], p[7]};
    }
    tile.pieces[row * Tile<kRows, kDim>::kPitch + piece] =
        make_uint4(round_pair(left.x, left.y), round_pair(left.z, left.w), round_pair(right.x, right.y),
                   round_pair(right.z, right.w));
  }
}

// Rows [row, row + 16), columns [column, column + 16) of a tile as the left side of a product.
template <class T>
__device__ __forceinline__ void load_left(uint32_t (&a)[4], const T& tile, int row, int column, int lane) {
  load_matrices(a, tile.at(row + lane % 16, column + lane / 16 * 8));
}

// Steps of a product's inner index that are unrolled, where its left side is not in registers.
template <int kDim>
inline constexpr int kSteps = kDim < 128 ? kDim / 16 : 4;

// scores[16 kTall x kRows] += left · rowsᵀ, over kDim columns. left(k, a) gives columns [16 k, 16 k + 16).
template <int kTall, int kUnrolled, int kRows, int kDim, class Left>
__device__ __forceinline__ void multiply_rows(float (&scores)[kTall][kRows / 8][4], const Left& left,
                                              const Tile<kRows, kDim>& tile, int lane) {
#pragma unroll kUnrolled
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t a[kTall][4];
    left(k, a);
#pragma unroll
    for (int n = 0; n < kRows / 16; ++n) {
      uint32_t b[4];
      load_matrices(b, tile.at(16 * n + lane % 8 + lane / 16 * 8, 16 * k + lane / 8 % 2 * 8));
#pragma unroll
      for (int r = 0; r < kTall; ++r) {
        mma_bf16(scores[r][2 * n], a[r], b[0], b[1]);
        mma_bf16(scores[r][2 * n + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// sums[16 kTall x kColumns] += weights[16 kTall x kRows] · columns [column, column + kColumns) of the tile.
template <int kTall, int kColumns, int kRows, int kDim>
__device__ __forceinline__ void add_weighted(float (&sums)[kTall][kColumns / 8][4],
                                             const uint32_t (&weights)[kTall][kRows / 16][4],
                                             const Tile<kRows, kDim>& tile, int column, int lane) {
#pragma unroll
  for (int k = 0; k < kRows / 16; ++k)
#pragma unroll
    for (int n = 0; n < kColumns / 16; ++n) {
      uint32_t b[4];
      load_transposed(b, tile.at(16 * k + lane % 16, column + 16 * n + lane / 16 * 8));
#pragma unroll
      for (int r = 0; r < kTall; ++r) {
        mma_bf16(sums[r][2 * n], weights[r][k], b[0], b[1]);
        mma_bf16(sums[r][2 * n + 1], weights[r][k], b[2], b[3]);
      }
    }
}

// What a product gave, rounded to be the left side of the next.
template <int kColumns>
__device__ __forceinline__ void round_left(uint32_t (&left)[kColumns / 16][4],
                                           const float (&values)[kColumns / 8][4]) {
#pragma unroll
  for (int k = 0; k < kColumns / 16; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      left[k][i] = round_pair(values[2 * k + i / 2][i % 2 * 2], values[2 * k + i / 2][i % 2 * 2 + 1]);
}

// Writes 16 rows of a product, times factors[0] (rows lane / 4) and factors[1] (rows 8 on), from `to` on;
// those below `rows`.
template <int kColumns>
__device__ __forceinline__ void write_rows(float* to, int64_t pitch, int64_t rows,
                                           const float (&values)[kColumns / 8][4], const float (&factors)[2],
                                           int lane) {
  const bool in_pairs = reinterpret_cast<uintptr_t>(to) % sizeof(float2) == 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    if (row >= rows) continue;
    float* at = to + row * pitch + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const float first = values[n][2 * half] * factors[half],
                  second = values[n][2 * half + 1] * factors[half];
      if (in_pairs) {
        *reinterpret_cast<float2*>(at + 8 * n) = make_float2(first, second);
      } else {
        at[8 * n] = first;
        at[8 * n + 1] = second;
      }
    }
  }
}

// Calls body with head_dim as a constant.
template <class Body>
void by_head_dim(int64_t head_dim, Body&& body) {
  switch (head_dim) {
    case 64:
      return body(std::integral_constant<int, 64>{});
    case 80:
      return body(std::integral_constant<int, 80>{});
    case 96:
      return body(std::integral_constant<int, 96>{});
    case 128:
      return body(std::integral_constant<int, 128>{});
    default:
      return body(std::integral_constant<int, 256>{});
  }
}

}  // namespace flash_parts
}  // namespace qlora::cuda
