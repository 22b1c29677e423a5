#pragma once
// Everything a device can do, and nothing else. The only device boundary of the project: pointers, sizes and
// element types in, results in memory that the caller owns. Calls on one Backend are ordered. Nothing here
// validates (ops do), allocates for the caller, or knows gradients, names and files. No fmt here: device code
// includes this header.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/args_attention.h"
#include "kernels/args_matmul.h"
#include "kernels/args_pointwise.h"
#include "kernels/args_sample.h"
#include "kernels/args_train.h"

namespace qlora {

enum class CopyKind : uint8_t { host_to_device, device_to_host, device_to_device };

class Backend {
 public:
  virtual ~Backend() = default;
  // "reference", "avx2", "avx512", "cuda", "cuda-emulated", "counting".
  virtual std::string_view name() const = 0;
  // True when pointers of this backend may be read on the host.
  virtual bool host_memory() const = 0;
  // Whether kernels take elements of this type (f32 always).
  virtual bool computes_in(DType type) const { return type == DType::f32 || type == DType::f64; }
  // Whether kernels read and write stored operands (Operands in args_matmul.h).
  virtual bool stores_operands() const { return false; }
  // Whether linear writes LoraPart::kept, and linear_backward reads it, in f32.
  virtual bool keeps_dropout() const { return false; }

  // ---- memory: 256-byte aligned, uninitialised. Throws Error(memory) when there is no more.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* p, size_t bytes) noexcept = 0;
  virtual void copy(void* dst, const void* src, size_t bytes, CopyKind) = 0;
  virtual void fill(void* p, size_t bytes, uint8_t value) = 0;
  virtual void synchronize() = 0;
  // Memory of the host that the device copies from and to at full speed: what does not fit on the device
  // (AdamW::slab_bytes, copy_beside). Kernels and copies may still be at work on it until synchronize().
  // 256-byte aligned, zeros.
  virtual void* allocate_host(size_t bytes) = 0;
  virtual void release_host(void* p, size_t bytes) noexcept = 0;
  // Copies between the device and such memory beside the calls that follow. A copy begins when all calls and
  // copies before it are done; calls after await_copies() find what the copies before that have brought.
  // Until then nobody writes or releases what is copied, or touches where it goes. The host waits for
  // neither.
  virtual void copy_beside(void* dst, const void* src, size_t bytes, CopyKind) = 0;
  virtual void await_copies() = 0;

  // ---- products
  virtual void gemm(const Gemm&) = 0;
  virtual void qgemm(const QGemm&) = 0;
  virtual void dequantize(const Dequantize&) = 0;
  // The linear layer with its adapters, forward and backward: the only products that ops call for frozen
  // weights.
  virtual void linear(const Linear&) = 0;
  virtual void linear_backward(const LinearBackward&) = 0;

  // ---- sequences
  virtual void attention(const Attention&) = 0;
  virtual void attention_backward(const AttentionBackward&) = 0;

  // ---- rows and elements
  virtual void rms_norm(const RmsNorm&) = 0;
  virtual void rms_norm_backward(const RmsNormBackward&) = 0;
  virtual void layer_norm(const LayerNorm&) = 0;
  virtual void layer_norm_backward(const LayerNormBackward&) = 0;
  virtual void rope_table(const RopeTable&) = 0;
  virtual void rope(const Rope&) = 0;
  virtual void activate(const Activate&) = 0;
  virtual void activate_backward(const ActivateBackward&) = 0;
  virtual void add(const Add&) = 0;
  virtual void gather_rows(const GatherRows&) = 0;
  virtual void scatter_rows(const ScatterRows&) = 0;
  virtual void copy_columns(const CopyColumns&) = 0;

  // ---- learning
  virtual void cross_entropy(const CrossEntropy&) = 0;
  virtual void softcap(const Softcap&) = 0;
  virtual void sum_squares(const SumSquares&) = 0;
  virtual void adamw(const AdamW&) = 0;
  virtual void adamw8(const AdamW8&) = 0;

  // ---- generation
  virtual void sample(const Sample&) = 0;
};

// What is chosen for a backend of a GPU, by the plan of its memory; other backends have nothing to choose.
// How fast it computes and in how much memory: no part of what a run is. Without cuBLAS sums have another
// order.
struct DeviceOptions {
  bool blas = true;       // products of many rows go through cuBLAS, where one is found
  size_t kept_bytes = 0;  // room for decoded weights that stay for the call that reads them next
};

// What `counting` has counted since the last reset.
struct Work {
  double flops = 0;  // multiply and add count as two
  double bytes = 0;  // read and written by kernels
  int64_t calls = 0;
};

// Whose kernels' own memory is counted: a backend of the CPU, or of a CUDA device.
enum class CountedKernels : uint8_t { cpu, cuda };

// A backend that computes nothing: memory is addresses without bytes behind them, and every call is added up.
class CountingBackend : public Backend {
 public:
  virtual const Work& work() const = 0;
  // Bytes that kernels would keep for themselves after the calls since the last reset, apart from slabs.
  virtual size_t scratch_bytes() const = 0;
  // Of the device, through which states in host memory pass (AdamW::slab_bytes).
  virtual size_t slab_bytes() const = 0;
  // Of all weights that products of many rows read, once they are decoded: what of them stays is chosen
  // (DeviceOptions::kept_bytes).
  virtual size_t decoded_bytes() const = 0;
  // Counts from now on, a device's kernels with these options.
  virtual void reset(const DeviceOptions&) = 0;
  void reset() { reset({}); }
};

struct BackendInfo {
  std::string name;
  bool available = false;
  std::string reason;  // why not, or what it is
};

// All that this build knows, best first, with the reason when one is unavailable.
std::vector<BackendInfo> list_backends();
// Makes one by name; "auto" = QLORA_BACKEND if set, else the best available. Throws Error(usage) for an
// unknown or unavailable name, with the reason. Backends are stateless apart from their memory; make as many
// as needed.
std::unique_ptr<Backend> make_backend(std::string_view name, const DeviceOptions& = {});
std::unique_ptr<CountingBackend> make_counting_backend(CountedKernels = CountedKernels::cpu);

}  // namespace qlora
