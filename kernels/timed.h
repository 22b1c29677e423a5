#pragma once
// A backend that passes every call on to another one and notes what it took: the seconds between call and
// return (the device is waited for), and the operations and bytes that the counting backend's formulas give
// for the same arguments. Results are those of the backend behind it, bit for bit.

#include <map>
#include <memory>
#include <string>

#include "kernels/backend.h"

namespace qlora {

// All calls of one kernel so far.
struct KernelTime {
  int64_t calls = 0;
  double seconds = 0;
  double flops = 0;  // multiply and add count as two
  double bytes = 0;  // read and written, each operand once: what a perfect cache would leave to memory
  DType type = DType::f32;
  Operands operands = Operands::as_stored;  // of products
};

class TimedBackend final : public Backend {
 public:
  // Rows are kernels with the formats of their weights and how products read their operands ("linear nf4
  // bf16", "attention bf16_amx"); with `by_shape` also with the sizes of the weights ("linear nf4 bf16
  // 1536x576 (1 of 2)").
  explicit TimedBackend(std::unique_ptr<Backend> inner, bool by_shape = false);

  const std::map<std::string, KernelTime>& times() const { return times_; }
  double seconds() const;  // of all kernels
  void reset() { times_.clear(); }

  std::string_view name() const override { return inner_->name(); }
  bool host_memory() const override { return inner_->host_memory(); }
  bool stores_operands() const override { return inner_->stores_operands(); }
  bool keeps_dropout() const override { return inner_->keeps_dropout(); }
  void* allocate(size_t bytes) override;
  void release(void* p, size_t bytes) noexcept override;
  void copy(void* dst, const void* src, size_t bytes, CopyKind) override;
  void fill(void* p, size_t bytes, uint8_t value) override;
  void synchronize() override { inner_->synchronize(); }
  void* allocate_host(size_t bytes) override { return inner_->allocate_host(bytes); }
  void release_host(void* p, size_t bytes) noexcept override { inner_->release_host(p, bytes); }
  void copy_beside(void* dst, const void* src, size_t bytes, CopyKind) override;
  void await_copies() override { inner_->await_copies(); }

  void gemm(const Gemm&) override;
  void qgemm(const QGemm&) override;
  void dequantize(const Dequantize&) override;
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

 private:
  template <class Args>
  void time(const std::string& kernel, void (Backend::*call)(const Args&), const Args&);
  std::string with_weights(const char* kernel, Operands, const WeightView& first, size_t terms) const;
  void note(const std::string& kernel, double begin, const Work&, DType, Operands = Operands::as_stored);

  std::unique_ptr<Backend> inner_;
  std::unique_ptr<CountingBackend> counting_ = make_counting_backend();
  bool by_shape_;
  std::map<std::string, KernelTime> times_;
};

}  // namespace qlora
