// Dequantization, of a weight or a piece of it: one launch, scales included.

#include "kernels/cuda/codes.cuh"

#include <cstring>
#include <type_traits>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/operands.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 8;   // elements a thread decodes in one step: four bytes of 4-bit codes, eight of int8
constexpr int kSteps = 4;  // independent steps, so that loads overlap
constexpr int64_t kTile = int64_t{kThreads} * kEach * kSteps;

struct Levels {
  float level[16];
};

template <class T>
__device__ __forceinline__ T rounded(float value) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(value);
  } else if constexpr (std::is_same_v<T, f16>) {
    return to_f16(value);
  } else {
    return value;
  }
}

// The codes of kEach elements, and the level of one of them.
struct Packed4 {
  static constexpr int kBits = 4;
  uint32_t pairs;
  __device__ __forceinline__ float level(const Levels& levels, int j) const {
    const uint32_t pair = pairs >> (8 * (j / 2)) & 0xff;
    return levels.level[j % 2 == 0 ? pair >> 4 : pair & 15];
  }
};
struct Packed8 {
  static constexpr int kBits = 8;
  uint2 bytes;
  __device__ __forceinline__ float level(const Levels&, int j) const {
    return int8_level((j < 4 ? bytes.x : bytes.y) >> (8 * (j % 4)));
  }
};
template <class Packed>
__device__ __forceinline__ Packed load_packed(const uint8_t* p) {
  if constexpr (Packed::kBits == 4) {
    return {__ldg(reinterpret_cast<const uint32_t*>(p))};
  } else {
    return {__ldg(reinterpret_cast<const uint2*>(p))};
  }
}

// A piece of a weight, and the block of a matrix that it becomes.
struct Window {
  int64_t in;                            // elements of a row of the weight
  int64_t row0, column0, rows, columns;  // the piece
  int64_t pitch, all_rows, all_columns;  // the block; zero where the piece ends before it
};

// Blocks that hold whole groups of eight: a group has one absmax, decoded by the lane that begins its block
// and handed on (blocks of 64 or more: eight lanes share it).
template <class T, class Packed>
__global__ void __launch_bounds__(kThreads) decode_groups(Codes w, T* out, Window s, bool in_pieces) {
  auto& shared = shared_as<Levels>();
  share_levels(shared.level, w);
  __syncthreads();
  const auto across = static_cast<uint32_t>(s.columns / kEach);
  const int64_t groups = s.all_rows * across, first = static_cast<int64_t>(blockIdx.x) * kThreads * kSteps;
  int64_t to[kSteps];
  Packed packed[kSteps] = {};
  float absmax[kSteps];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int64_t group = first + step * kThreads + threadIdx.x;
    const auto row = static_cast<uint32_t>(group) / across;
    const int64_t column = int64_t{kEach} * (static_cast<uint32_t>(group) % across);
    const int64_t i = (s.row0 + row) * s.in + s.column0 + column;
    const bool inside = group < groups && row < s.rows;
    to[step] = group < groups ? row * s.pitch + column : -1;
    if (inside) packed[step] = load_packed<Packed>(w.data + i * Packed::kBits / 8);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const float own = inside && lane % 8 == 0 ? absmax_of(w, i / w.block) : 0.0f;
    absmax[step] = __shfl_sync(kAllLanes, own, lane & ~7);
  }
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (to[step] < 0) continue;
    T* place = out + to[step];
    constexpr int kPieces = kEach * static_cast<int>(sizeof(T)) / 16;
    T values[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      values[j] = rounded<T>(__fmul_rn(packed[step].level(shared, j), absmax[step]));
    }
    if (in_pieces) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        uint4 piece;
        memcpy(&piece, values + j * (kEach / kPieces), sizeof(uint4));
        reinterpret_cast<uint4*>(place)[j] = piece;
      }
    } else {
      for (int j = 0; j < kEach; ++j) place[j] = values[j];
    }
  }
}

// Any block, any length.
template <class T>
__global__ void __launch_bounds__(kThreads) decode_each(Codes w, T* out, Window s) {
  auto& shared = shared_as<Levels>();
  share_levels(shared.level, w);
  __syncthreads();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = i / s.all_columns, column = i % s.all_columns;
  if (row >= s.all_rows) return;
  const bool inside = row < s.rows && column < s.columns;
  const int64_t from = (s.row0 + row) * s.in + s.column0 + column;
  out[row * s.pitch + column] = rounded<T>(inside ? weight_at(w, shared.level, from) : 0.0f);
}

template <class To, class From>
__global__ void __launch_bounds__(kThreads) convert(const From* from, To* to, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  if constexpr (std::is_same_v<From, bf16> || std::is_same_v<From, f16>) {
    to[i] = rounded<To>(to_float(from[i]));
  } else {
    to[i] = rounded<To>(from[i]);
  }
}

template <class T>
void decode_window(Device& d, const WeightView& w, T* out, const Window& s) {
  const Codes codes = codes_of(w);
  const int64_t n = s.all_rows * s.all_columns;
  const bool whole_blocks = w.block % 64 == 0 && s.in % 64 == 0 && s.column0 % 64 == 0 &&
                            s.columns % 64 == 0 && s.columns == s.all_columns;
  if (whole_blocks && aligned(w.data, static_cast<size_t>(codes.bits)) && n / kEach <= UINT32_MAX) {
    const auto kernel = codes.bits == 8 ? decode_groups<T, Packed8> : decode_groups<T, Packed4>;
    d.stream.launch(kernel, dim3(blocks_for(n, kTile)), dim3(kThreads), sizeof(Levels), codes, out, s,
                    aligned(out, sizeof(uint4)) && s.pitch * sizeof(T) % sizeof(uint4) == 0);
  } else {
    d.stream.launch(decode_each<T>, dim3(blocks_for(n, kThreads)), dim3(kThreads), sizeof(Levels), codes, out,
                    s);
  }
}

template <class T>
void dequantize_to(Device& d, const Dequantize& a) {
  auto* out = static_cast<T*>(a.dst);
  const int64_t n = a.w.out * a.w.in;
  // The flattened matrix is one row: its blocks run over the rows of the weight.
  if (a.w.format != Format::dense) return decode_window(d, a.w, out, {n, 0, 0, 1, n, n, 1, n});
  const dim3 grid(blocks_for(n, kThreads)), block(kThreads);
  if (a.w.type == a.type) return d.stream.copy(out, a.w.data, static_cast<size_t>(n) * sizeof(T));
  d.stream.launch(convert<T, bf16>, grid, block, 0, static_cast<const bf16*>(a.w.data), out, n);
}

}  // namespace

Codes codes_of(const WeightView& w) {
  Codes codes{static_cast<const uint8_t*>(w.data),
              w.absmax,
              w.absmax_codes,
              w.nested_absmax,
              w.code_map,
              w.nested_offset,
              w.block,
              bits_of(w.format),
              {}};
  with_format(w.format, [&](auto format) {
    if constexpr (decltype(format)::kBits == 4)
      for (int code = 0; code < 16; ++code) codes.levels[code] = decltype(format)::level(code);
  });
  return codes;
}

void decode(Device& d, const WeightView& w, const Piece& p, const Block& b) {
  if (b.rows == 0 || b.columns == 0) return;
  if (w.format != Format::dense) {
    return decode_window(d, w, b.to, {w.in, p.row, p.column, p.rows, p.columns, b.pitch, b.rows, b.columns});
  }
  const auto* from =
      static_cast<const std::byte*>(w.data) + static_cast<size_t>(p.row * w.in + p.column) * size_of(w.type);
  narrow(d, {from, w.type, w.in, p.rows, p.columns}, b);
}

void dequantize(Device& d, const Dequantize& a) {
  if (a.w.out * a.w.in == 0) return;
  switch (a.type) {
    case DType::bf16:
      return dequantize_to<bf16>(d, a);
    case DType::f16:
      return dequantize_to<f16>(d, a);
    default:
      return dequantize_to<float>(d, a);
  }
}

}  // namespace qlora::cuda
