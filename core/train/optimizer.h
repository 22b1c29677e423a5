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

class Optimizer {
 public:
  // Moments start at zero, of the parameters' type, on their device; with `slab_bytes`, in host memory from
  // which they pass through so many bytes of the device (AdamW::slab_bytes).
  Optimizer(std::vector<Param*> params, Memory&, DType, size_t slab_bytes = 0);

  // Norm of the gradient times `gradient_scale` (1 / labels of the effective batch), before clipping.
  double gradient_norm(double gradient_scale);
  // One update, the t-th (from 1). REQUIRES: gradient_norm() was called for these gradients.
  void step(const TrainConfig&, double learning_rate, int64_t t);
  void zero_gradients();

  // The moments as named tensors ("exp_avg.NAME", "exp_avg_sq.NAME"), and, where PEFT's f32 file would round
  // them, the parameters ("param.NAME"): exactly what continues the run.
  void save(const Path& file) const;
  // Throws Error(data) when a tensor is missing, has another type or size, or has no place in this run.
  void restore(const Path& file);

 private:
  struct Named {
    std::string name;
    Shape shape;
    Tensor tensor = {};                 // on the device, or
    std::span<std::byte> on_host = {};  // not
  };
  std::vector<Named> tensors() const;
  // The moments of parameter i: m (0) or v (1), where they lie, and as a tensor of this name.
  void* moment(size_t i, int which) const;
  Named named_moment(std::string name, size_t i, int which) const;

  std::vector<Param*> params_;
  Memory& memory_;
  DType type_;
  size_t slab_bytes_;
  std::vector<Tensor> moments_[2];   // m and v on the device,
  HostArray paged_[2];               // or in host memory, of all parameters one after another
  std::vector<size_t> places_ = {};  // where those of parameter i begin
  Tensor scalars_;                   // one StepScalars
  double gradient_scale_ = 1;
};

}  // namespace qlora
