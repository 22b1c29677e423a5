#pragma once
// Frozen linears: the one contact point between adapters and quantization. See also kernels/quant.

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/tensor/tensor.h"
#include "kernels/backend.h"

namespace qlora {

// Where a frozen linear computes.
struct Exec {
  Backend& backend;
  Memory& memory;
  DType type = DType::f32;
  const RowKey* keys = nullptr;             // host, [rows]
  std::span<const int32_t> sequences = {};  // host; backward
  Numerics numerics = Numerics::exact;      // forward
};

class FrozenWeight;

// y = x Wᵀ + bias with W never trained. The adapters' parts go in, because their delta must meet the
// accumulator before the one rounding, in forward and in the gradient of x.
class FrozenLinear {
 public:
  virtual ~FrozenLinear() = default;
  virtual const std::string& name() const = 0;
  virtual int64_t out() const = 0;
  virtual int64_t in() const = 0;
  // Bytes on the device.
  virtual size_t bytes() const = 0;
  // y [rows, out]: overwritten. Empty: nobody reads it, and only the u of the parts is computed.
  virtual void forward(const Exec&, const Tensor& x, std::span<const LoraPart>, const Tensor& y) const = 0;
  // dx [rows, in] (may be empty: only the parts' gradients are wanted); x is read by the parts only.
  virtual void backward(const Exec&, const Tensor& x, const Tensor& dy, std::span<const LoraPart>,
                        const Tensor& dx, Write) const = 0;
  // W as [out, in] elements of `type`: tests, merging, export. Not for the hot path.
  virtual Tensor to_dense(Memory&, DType type) const = 0;
  // The plain weight, of which one kernel takes several; null for wrappers, whose x is of the compute type.
  virtual const FrozenWeight* plain() const { return nullptr; }
};

// How to store the linears of a base model.
struct QuantConfig {
  Format format = Format::dense;  // dense: see dense_type()
  bool double_quant = false;
  int64_t block = 64;          // elements per absmax
  int64_t nested_block = 256;  // absmax values per nested absmax (bitsandbytes allows only 256)
  bool operator==(const QuantConfig&) const = default;
};

// The elements of a dense weight: rounded once, when it is stored, if every product would round them. Half
// the bytes.
constexpr DType dense_type(DType compute_type, Operands operands) {
  return is_bf16(operands) ? DType::bf16 : compute_type;
}

// The default FrozenLinear: dense, or blocks of codes with absmax (a WeightView).
class FrozenWeight final : public FrozenLinear {
 public:
  FrozenWeight(std::string name, int64_t out, int64_t in);
  const std::string& name() const override { return name_; }
  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  size_t bytes() const override;
  void forward(const Exec&, const Tensor& x, std::span<const LoraPart>, const Tensor& y) const override;
  void backward(const Exec&, const Tensor& x, const Tensor& dy, std::span<const LoraPart>, const Tensor& dx,
                Write) const override;
  Tensor to_dense(Memory&, DType type) const override;
  const FrozenWeight* plain() const override { return this; }

  WeightView view() const;
  const Tensor& bias() const { return bias_; }  // may be empty

  // The parts, set once by quantize() and by loaders.
  struct Parts {
    Format format = Format::dense;
    Tensor data;           // dense elements of the compute type or bf16, or packed codes (u8)
    Tensor absmax;         // f32, when not double-quantized
    Tensor absmax_codes;   // u8
    Tensor nested_absmax;  // f32
    Tensor code_map;       // f32 [256]
    float nested_offset = 0;
    int64_t block = 0;
    Operands operands = Operands::as_stored;  // of every product with this weight
  };
  const Parts& parts() const { return parts_; }
  void set_parts(Parts p) { parts_ = std::move(p); }
  void set_bias(Tensor b) { bias_ = std::move(b); }

 private:
  std::string name_;
  int64_t out_, in_;
  Parts parts_;
  Tensor bias_;
};

// Writes the elements of a host matrix from `begin` on, flattened row by row. Asked for from front to back, a
// slice of at most kQuantizeSlice at a time.
using WeightSource = std::function<void(int64_t begin, std::span<float> out)>;
inline constexpr int64_t kQuantizeSlice = int64_t{1} << 20;  // whole blocks of any size

// Quantizes what `source` gives, of which only a slice is in memory at a time; no source makes a weight of
// the right size with undefined content: planning on the counting backend. NaN or infinity throws Error(data)
// naming the tensor and the element.
std::shared_ptr<FrozenWeight> quantize_slices(Memory&, std::string name, int64_t out, int64_t in,
                                              const WeightSource&, const QuantConfig&, DType compute_type,
                                              Operands = Operands::as_stored);
// Host bytes that quantize_slices() takes beside the weight and what the source takes: most for a matrix of
// `elements`.
size_t quantize_scratch(int64_t elements, const QuantConfig&);

// Quantizes a host matrix [out, in] (f32, row-major) onto `memory`'s device. An empty span makes a weight of
// the right size with undefined content.
std::shared_ptr<FrozenWeight> quantize(Memory&, std::string name, int64_t out, int64_t in,
                                       std::span<const float>, const QuantConfig&, DType compute_type,
                                       Operands = Operands::as_stored);

}  // namespace qlora
