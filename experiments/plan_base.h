#pragma once
// What planning shares between its parts: one model folder under one quantization and compute type, with no
// weights behind it.

#include <memory>

#include "core/models/drafts.h"
#include "core/models/model.h"
#include "experiments/plan.h"

namespace qlora {

// More than anything takes.
inline constexpr size_t kAddresses = size_t{1} << 44;

struct PlanBase {
  explicit PlanBase(CountedKernels kernels)
      : backend(make_counting_backend(kernels)),
        drafts(kernels == CountedKernels::cpu ? kDraftRows - 1 : 0) {}
  std::unique_ptr<CountingBackend> backend;
  Memory memory{*backend};
  std::shared_ptr<const Model> model;
  DType type = DType::f32;
  size_t loading = 0;    // bytes at the peak of loading
  const int64_t drafts;  // of generated answers: as many as a step ever has; a device makes none
};

}  // namespace qlora
