#include "kernels/cuda/backend.h"

#include <string>

#include "core/base/error.h"
#include "kernels/cuda/copies.h"
#include "kernels/cuda/kept.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/optimizer.h"

namespace qlora::cuda {
namespace {

#if defined(__CUDACC__)
constexpr std::string_view kName = "cuda";
#else
constexpr std::string_view kName = "cuda-emulated";
#endif

// No stored operands here (Backend::stores_operands).
void takes_f32(const char* what, DType type) {
  if (type == DType::f32) return;
  throw Error(ErrorKind::failure, std::string("on CUDA ") + what + " is f32, not " + name_of(type));
}

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const DeviceOptions& options) : device_{.options = options} {}
  std::string_view name() const override { return kName; }
  bool host_memory() const override { return false; }
  bool computes_in(DType type) const override { return type == DType::f32; }

  void* allocate(size_t bytes) override { return allocate_device(bytes); }
  void release(void* p, size_t bytes) noexcept override {
    forget(p, bytes);
    release_device(p);
  }
  void copy(void* to, const void* from, size_t bytes, CopyKind kind) override {
    if (kind != CopyKind::device_to_host) forget(to, bytes);
    switch (kind) {
      case CopyKind::host_to_device:
        return device_.stream.copy_in(to, from, bytes);
      case CopyKind::device_to_host:
        return device_.stream.copy_out(to, from, bytes);
      default:
        return device_.stream.copy(to, from, bytes);
    }
  }
  void fill(void* p, size_t bytes, uint8_t value) override {
    forget(p, bytes);
    device_.stream.fill(p, bytes, value);
  }
  void synchronize() override {
    device_.stream.wait();
    wait_for_pages(device_);
    finish_copies(device_);
  }
  void* allocate_host(size_t bytes) override { return cuda::allocate_host(bytes); }
  void release_host(void* p, size_t) noexcept override { cuda::release_host(p); }
  void copy_beside(void* to, const void* from, size_t bytes, CopyKind kind) override {
    if (kind == CopyKind::host_to_device) forget(to, bytes);
    cuda::copy_beside(device_, to, from, bytes, kind);
  }
  void await_copies() override { cuda::await_copies(device_); }

  void gemm(const Gemm& a) override {
    takes_f32("x of a product", a.x_type);
    cuda::gemm(device_, a);
  }
  void qgemm(const QGemm& a) override {
    takes_f32("x of a product", a.x_type);
    cuda::qgemm(device_, a);
  }
  void dequantize(const Dequantize& a) override { cuda::dequantize(device_, a); }
  void linear(const Linear& a) override {
    takes_f32("x of a linear layer", a.x_type);
    cuda::linear(device_, a);
  }
  void linear_backward(const LinearBackward& a) override {
    takes_f32("x of a linear layer", a.x_type);
    cuda::linear_backward(device_, a);
  }
  void attention(const Attention& a) override {
    takes_f32("q of attention", a.q_type);
    takes_f32("k of attention", a.kv_type);
    cuda::attention(device_, a);
  }
  void attention_backward(const AttentionBackward& a) override {
    takes_f32("q of attention", a.forward.q_type);
    takes_f32("k of attention", a.forward.kv_type);
    cuda::attention_backward(device_, a);
  }
  void rms_norm(const RmsNorm& a) override {
    takes_f32("y of a norm", a.y_type);
    cuda::rms_norm(device_, a);
  }
  void rms_norm_backward(const RmsNormBackward& a) override { cuda::rms_norm_backward(device_, a); }
  void layer_norm(const LayerNorm& a) override {
    takes_f32("y of a norm", a.y_type);
    cuda::layer_norm(device_, a);
  }
  void layer_norm_backward(const LayerNormBackward& a) override { cuda::layer_norm_backward(device_, a); }
  void rope_table(const RopeTable& a) override { cuda::rope_table(device_, a); }
  void rope(const Rope& a) override {
    takes_f32("y of rope", a.y_type);
    cuda::rope(device_, a);
  }
  void activate(const Activate& a) override {
    takes_f32("y of an activation", a.y_type);
    cuda::activate(device_, a);
  }
  void activate_backward(const ActivateBackward& a) override { cuda::activate_backward(device_, a); }
  void add(const Add& a) override { cuda::add(device_, a); }
  void gather_rows(const GatherRows& a) override { cuda::gather_rows(device_, a); }
  void scatter_rows(const ScatterRows& a) override { cuda::scatter_rows(device_, a); }
  void copy_columns(const CopyColumns& a) override { cuda::copy_columns(device_, a); }
  void cross_entropy(const CrossEntropy& a) override { cuda::cross_entropy(device_, a); }
  void softcap(const Softcap& a) override { cuda::softcap(device_, a); }
  void sum_squares(const SumSquares& a) override { cuda::sum_squares(device_, a); }
  void adamw(const AdamW& a) override { cuda::adamw(device_, a); }
  void adamw8(const AdamW8& a) override { cuda::adamw8(device_, a); }
  void sample(const Sample& a) override { cuda::sample(device_, a); }

 private:
  // Of weights that were there, nothing decoded is right any more.
  void forget(const void* p, size_t bytes) {
    if (device_.kept_weights != nullptr) device_.kept_weights->forget(p, bytes);
  }

  Device device_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(const DeviceOptions& options) {
  return std::make_unique<CudaBackend>(options);
}

}  // namespace qlora::cuda
