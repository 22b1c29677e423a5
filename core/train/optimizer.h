#pragma once
// AdamW over the parameters of one run, behind Backend::adamw.

#include <span>
#include <string>
#include <vector>

#include "core/tape/tape.h"
#include "core/tensor/host_array.h"
#include "core/train/run.h"

namespace qlora {

class SafetensorsFile;

// Throws Error(data) when a file of a checkpoint has more tensors than the run that reads it.
void check_no_more(const SafetensorsFile&, size_t expected);

// Smaller parameters have states of 32 bits in any case, as in bitsandbytes.
inline constexpr int64_t kLeastForEightBits = 4096;

class Optimizer {
 public:
  // Moments start at zero, of the parameters' type, on their device. With `slab_bytes` they lie in host
  // memory, from which they pass through so many bytes of the device (AdamW::slab_bytes); with `eight_bit`,
  // those of large parameters are stored in eight bits (AdamW8).
  Optimizer(std::vector<Param*> params, Memory&, DType, size_t slab_bytes = 0, bool eight_bit = false);

  // Norm of the gradient times `gradient_scale` (1 / labels of the effective batch), before clipping.
  double gradient_norm(double gradient_scale);
  // One update, the t-th (from 1). REQUIRES: gradient_norm() was called for these gradients.
  void step(const TrainConfig&, double learning_rate, int64_t t);
  void zero_gradients();

  // The moments as named tensors ("exp_avg.NAME", "exp_avg_sq.NAME"; in eight bits flat codes, and
  // "exp_avg_absmax.NAME", "exp_avg_sq_absmax.NAME"), and, where PEFT's f32 file would round them, the
  // parameters
  // ("param.NAME"): exactly what continues the run.
  void save(const Path& file) const;
  // Throws Error(data) when a tensor is missing, has another type or size, or has no place in this run.
  void restore(const Path& file);

 private:
  // An array of a checkpoint.
  struct State {
    std::string name;
    Shape shape;
    DType type = DType::f32;
    Tensor tensor = {};                 // on the device, or
    std::span<std::byte> on_host = {};  // not
    void* data() const { return tensor ? tensor.data() : on_host.data(); }
  };
  struct Moments {
    State m, v;
    State m_absmax = {}, v_absmax = {};  // in eight bits
  };
  State on_device(std::string name, Shape, DType) const;
  Moments moments_of(const Param&, bool eight_bit) const;
  void page(size_t bytes);
  std::vector<State> states() const;

  std::vector<Param*> params_;
  Memory& memory_;
  DType type_;
  size_t slab_bytes_;
  std::vector<Moments> moments_ = {};  // one for each parameter
  HostArray paged_ = {};               // m of all parameters, then v
  Tensor scalars_ = {};                // one StepScalars
  double gradient_scale_ = 1;
};

}  // namespace qlora
