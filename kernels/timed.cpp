#include "kernels/timed.h"

#include <fmt/format.h>

#include <chrono>

namespace qlora {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class Args>
DType type_of(const Args& a) {
  return a.type;
}
DType type_of(const AttentionBackward& a) {
  return a.forward.type;
}

template <class Args>
Operands operands_of(const Args& a) {
  if constexpr (requires { a.operands; }) {
    return a.operands;
  } else {
    return Operands::as_stored;
  }
}
Operands operands_of(const AttentionBackward& a) {
  return a.forward.operands;
}

// " bf16": of the name of a kernel.
std::string ending(Operands operands) {
  return is_bf16(operands) ? std::string(" ") + name_of(operands) : "";
}

template <class Args>
std::string named(const char* kernel, const Args& a) {
  return kernel + ending(operands_of(a));
}

}  // namespace

TimedBackend::TimedBackend(std::unique_ptr<Backend> inner, bool by_shape)
    : inner_(std::move(inner)), by_shape_(by_shape) {}

double TimedBackend::seconds() const {
  double sum = 0;
  for (const auto& [kernel, time] : times_) sum += time.seconds;
  return sum;
}

void TimedBackend::note(const std::string& kernel, double begin, const Work& work, DType type,
                        Operands operands) {
  const double end = now();
  KernelTime& time = times_[kernel];
  ++time.calls;
  time.seconds += end - begin;
  time.flops += work.flops;
  time.bytes += work.bytes;
  time.type = type;
  time.operands = operands;
}

template <class Args>
void TimedBackend::time(const std::string& kernel, void (Backend::*call)(const Args&), const Args& args) {
  counting_->reset();
  ((*counting_).*call)(args);
  const double begin = now();
  ((*inner_).*call)(args);
  inner_->synchronize();
  note(kernel, begin, counting_->work(), type_of(args), operands_of(args));
}

std::string TimedBackend::with_weights(const char* kernel, Operands operands, const WeightView& first,
                                       size_t terms) const {
  std::string name = fmt::format("{} {}{}", kernel, name_of(first.format), ending(operands));
  if (by_shape_) name += fmt::format(" {}x{}", first.out, first.in);
  if (by_shape_ && terms > 1) name += fmt::format(" (1 of {})", terms);
  return name;
}

void* TimedBackend::allocate(size_t bytes) {
  const double begin = now();
  void* p = inner_->allocate(bytes);
  note("allocate", begin, {}, DType::u8);
  return p;
}
void TimedBackend::release(void* p, size_t bytes) noexcept {
  inner_->release(p, bytes);
}
void TimedBackend::copy(void* dst, const void* src, size_t bytes, CopyKind kind) {
  const double begin = now();
  inner_->copy(dst, src, bytes, kind);
  inner_->synchronize();
  note(kind == CopyKind::device_to_host ? "copy to host" : "copy", begin,
       {.bytes = 2 * static_cast<double>(bytes)}, DType::u8);
}
// Not beside anything: the row is what the copy takes, which in a step that is not timed others may hide.
void TimedBackend::copy_beside(void* dst, const void* src, size_t bytes, CopyKind kind) {
  const double begin = now();
  inner_->copy_beside(dst, src, bytes, kind);
  inner_->synchronize();
  note(kind == CopyKind::device_to_host ? "offload" : "load what was offloaded", begin,
       {.bytes = 2 * static_cast<double>(bytes)}, DType::u8);
}
void TimedBackend::fill(void* p, size_t bytes, uint8_t value) {
  const double begin = now();
  inner_->fill(p, bytes, value);
  inner_->synchronize();
  note("fill", begin, {.bytes = static_cast<double>(bytes)}, DType::u8);
}

void TimedBackend::gemm(const Gemm& a) {
  std::string name = named("gemm", a);
  if (by_shape_) name += fmt::format(" {}x{}x{}", a.m, a.n, a.k);
  time(name, &Backend::gemm, a);
}
void TimedBackend::qgemm(const QGemm& a) {
  time(with_weights(a.layout == Layout::nt ? "qgemm" : "qgemm backward", a.operands, a.w, 1), &Backend::qgemm,
       a);
}
void TimedBackend::dequantize(const Dequantize& a) {
  time(with_weights("dequantize", Operands::as_stored, a.w, 1), &Backend::dequantize, a);
}
void TimedBackend::linear(const Linear& a) {
  time(with_weights("linear", a.operands, a.terms.front().w, a.terms.size()), &Backend::linear, a);
}
void TimedBackend::linear_backward(const LinearBackward& a) {
  time(with_weights("linear_backward", a.operands, a.terms.front().w, a.terms.size()),
       &Backend::linear_backward, a);
}
void TimedBackend::attention(const Attention& a) {
  time(named("attention", a), &Backend::attention, a);
}
void TimedBackend::attention_backward(const AttentionBackward& a) {
  time(named("attention_backward", a), &Backend::attention_backward, a);
}
void TimedBackend::rms_norm(const RmsNorm& a) {
  time(a.residual != nullptr ? "rms_norm of a sum" : "rms_norm", &Backend::rms_norm, a);
}
void TimedBackend::rms_norm_backward(const RmsNormBackward& a) {
  time("rms_norm_backward", &Backend::rms_norm_backward, a);
}
void TimedBackend::layer_norm(const LayerNorm& a) {
  time(a.residual != nullptr ? "layer_norm of a sum" : "layer_norm", &Backend::layer_norm, a);
}
void TimedBackend::layer_norm_backward(const LayerNormBackward& a) {
  time("layer_norm_backward", &Backend::layer_norm_backward, a);
}
void TimedBackend::rope_table(const RopeTable& a) {
  time("rope_table", &Backend::rope_table, a);
}
void TimedBackend::rope(const Rope& a) {
  time("rope", &Backend::rope, a);
}
void TimedBackend::activate(const Activate& a) {
  time(a.up != nullptr ? "gated activation" : "activation", &Backend::activate, a);
}
void TimedBackend::activate_backward(const ActivateBackward& a) {
  time(a.up != nullptr ? "gated activation backward" : "activation backward", &Backend::activate_backward, a);
}
void TimedBackend::add(const Add& a) {
  time("add", &Backend::add, a);
}
void TimedBackend::gather_rows(const GatherRows& a) {
  time("gather_rows", &Backend::gather_rows, a);
}
void TimedBackend::scatter_rows(const ScatterRows& a) {
  time("scatter_rows", &Backend::scatter_rows, a);
}
void TimedBackend::copy_columns(const CopyColumns& a) {
  time("columns", &Backend::copy_columns, a);
}
void TimedBackend::cross_entropy(const CrossEntropy& a) {
  time("cross_entropy", &Backend::cross_entropy, a);
}
void TimedBackend::softcap(const Softcap& a) {
  time("softcap", &Backend::softcap, a);
}
void TimedBackend::sum_squares(const SumSquares& a) {
  time("sum_squares", &Backend::sum_squares, a);
}
void TimedBackend::adamw(const AdamW& a) {
  time("adamw", &Backend::adamw, a);
}
void TimedBackend::adamw8(const AdamW8& a) {
  time("adamw8", &Backend::adamw8, a);
}
void TimedBackend::sample(const Sample& a) {
  time("sample", &Backend::sample, a);
}

}  // namespace qlora
