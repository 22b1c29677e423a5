#pragma once
// How much memory the kernels of the CPU backends keep for themselves: operands packed for products, rows
// with dropout, scores of attention. Buffers grow to the largest need and stay, so needs of different calls
// join by the larger of each.

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"

namespace qlora {

// The needs of all calls that were added; never less than what any CPU backend takes (scratch_test.cpp).
class ScratchNeed {
 public:
  void add(const Gemm&);
  void add(const QGemm&);
  void add(const Dequantize&);
  void add(const Linear&);
  void add(const LinearBackward&);
  void add(const Attention&);
  void add(const AttentionBackward&);
  // With so many threads: some buffers exist once for each.
  size_t bytes(int threads) const;

 private:
  enum Buffer {
    kDropped,
    kLowRank,
    kDelta,
    kSum,
    kPackedX,
    kPackedW,
    kPackedInside,
    kWholeW,
    kAbsmax,
    kSegmentScales,
    kScores,
    kGradients,
    kThin,
    kDeltas,
    kKept,
    kThinSums,
    kDeltaPanels,
    kBuffers
  };
  void need(Buffer, int64_t elements, DType = DType::f32);
  void product(int64_t m, int64_t n, int64_t k, DType, Operands);
  void own_rows(int64_t m, int64_t k);
  void panel(int64_t k, Operands);
  void inside(int64_t m, int64_t k, Operands);
  void weight(const WeightView&, int64_t rows, bool forward, DType, Operands);
  void scales(const WeightView&);
  void decode_class(const WeightView&, int64_t rows);
  void panels(int64_t ranks, int64_t rank, int64_t dropped_columns, int64_t k, Operands);

  std::array<size_t, kBuffers> bytes_{};
};

}  // namespace qlora
