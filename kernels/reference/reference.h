#pragma once
// The plain backend: loops over host memory in f32 or f64. It is the oracle (in f64) that every other backend
// is checked against, the backend of last resort, and the base class of the SIMD backends, which override
// what is hot.

#include <array>
#include <cstddef>
#include <memory>

#include "kernels/backend.h"

namespace qlora {

// y[rows, cols] (+)= factor * keep(x), keep() being that of Dropout (args_matmul.h); y may be x in mode
// overwrite.
struct DropRows {
  const void* x = nullptr;
  void* y = nullptr;
  int64_t rows = 0, cols = 0;
  const RowKey* keys = nullptr;   // [rows]
  const uint8_t* kept = nullptr;  // [rows, kept_bytes(cols)]: what LoraPart::kept says, and nothing is drawn
  Dropout dropout = {};
  float factor = 1;
  Write mode = Write::overwrite;
  DType type = DType::f32;  // of x and y; bf16: of stored operands (args_matmul.h)
};

// f32(1 / (1 - p)), by which sums of kept elements are multiplied.
float dropout_factor(float p);

class Reference : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  // Bytes that kernels keep for themselves now.
  virtual size_t scratch_bytes() const;
  bool host_memory() const override { return true; }
  bool stores_operands() const override { return true; }
  bool keeps_dropout() const override { return true; }

  void* allocate(size_t bytes) override;
  void release(void* p, size_t bytes) noexcept override;
  void copy(void* dst, const void* src, size_t bytes, CopyKind) override;
  void fill(void* p, size_t bytes, uint8_t value) override;
  void synchronize() override {}
  void* allocate_host(size_t bytes) override;
  void release_host(void* p, size_t bytes) noexcept override { release(p, bytes); }
  void copy_beside(void* dst, const void* src, size_t bytes, CopyKind kind) override {
    copy(dst, src, bytes, kind);
  }
  void await_copies() override {}

  void gemm(const Gemm&) override;
  void qgemm(const QGemm&) override;
  void dequantize(const Dequantize&) override;
  // Both are compositions of qgemm, gemm, drop_rows and add_bias: overriding those makes them fast.
  void linear(const Linear&) override;
  void linear_backward(const LinearBackward&) override;

  void attention(const Attention&) override;
  void attention_backward(const AttentionBackward&) override;

  void rms_norm(const RmsNorm&) override;
  void rms_norm_backward(const RmsNormBackward&) override;
  void layer_norm(const LayerNorm&) override;
  void layer_norm_backward(const LayerNormBackward&) override;
  void rope_table(const RopeTable&) override;
  void rope(const Rope&) override;
  void activate(const Activate&) override;
  void activate_backward(const ActivateBackward&) override;
  void add(const Add&) override;
  void gather_rows(const GatherRows&) override;
  void scatter_rows(const ScatterRows&) override;
  void copy_columns(const CopyColumns&) override;

  void cross_entropy(const CrossEntropy&) override;
  void softcap(const Softcap&) override;
  void sum_squares(const SumSquares&) override;
  void adamw(const AdamW&) override;
  void adamw8(const AdamW8&) override;

  void sample(const Sample&) override;

 protected:
  virtual void drop_rows(const DropRows&);
  // y = x Wᵀ of all terms that are read.
  virtual void base_products(const Linear&);
  // Adds their biases to the terms that are read.
  void add_biases(const Linear&);

  // Buffers inside one call of a kernel. They grow as needed, are reused by later calls (so that pages are
  // touched once), and live as long as the backend. Content is undefined; the address is 256-byte aligned.
  enum class Scratch : uint8_t { dropped, low_rank, delta, sum, count };
  void* scratch(Scratch, size_t bytes);

 private:
  struct Free {
    void operator()(std::byte*) const noexcept;
  };
  struct Buffer {
    std::unique_ptr<std::byte, Free> bytes;
    size_t size = 0;
  };
  std::array<Buffer, static_cast<size_t>(Scratch::count)> scratch_;

  void part_forward(const Linear&, const LinearTerm&, const LoraPart&);
  void part_backward(const LinearBackward&, const LinearBackwardTerm&, const LoraPart&, void* dx);
};

}  // namespace qlora
