#pragma once
// Arguments of losses, gradient norms and optimizers.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/dtype.h"

namespace qlora {

// Per row: loss = lse(logits) - logits[target]; dlogits = weight * (softmax(logits) - onehot(target)).
// dlogits may be the logits themselves, or null (evaluation). loss is not multiplied by the weight.
// A negative target gives loss 0 and dlogits 0.
// With a softcap c the loss is that of c tanh(logits / c).
// dlogits are then still those of the logits as given.
struct CrossEntropy {
  const void* logits = nullptr;      // [rows, vocab]
  const int32_t* targets = nullptr;  // host memory, [rows]
  const float* weights = nullptr;    // host memory, [rows]; null = 1
  void* loss = nullptr;              // [rows], `type`
  void* dlogits = nullptr;           // [rows, vocab] or null
  int32_t* argmax = nullptr;  // [rows], device memory, or null: the first index of the largest logit as given
  int64_t rows = 0, vocab = 0;
  DType type = DType::f32;
  double softcap = 0;  // 0: none
};

// y = cap tanh(x / cap), element by element. y may be x.
struct Softcap {
  const void* x = nullptr;
  void* y = nullptr;
  int64_t n = 0;
  double cap = 1;
  DType type = DType::f32;
};

struct TensorRef {
  const void* data = nullptr;
  int64_t n = 0;
};

// *out (f64, device memory) = sum of squares of all elements of all tensors, one f64 partial per 4,096
// elements of a tensor, partials added in order.
struct SumSquares {
  std::span<const TensorRef> tensors = {};  // host memory
  double* out = nullptr;
  DType type = DType::f32;
};

// What an optimizer step multiplies with; device memory, f64, so that nothing is read back within a step.
struct StepScalars {
  double sum_squares = 0;     // of the unscaled gradients (SumSquares writes it here)
  double gradient_scale = 1;  // 1 / label tokens of the effective batch
  double max_grad_norm = 0;   // 0 = no clipping
  double learning_rate = 0;
};

// One tensor of a run and its states.
struct AdamTensor {
  void* p = nullptr;
  const void* g = nullptr;
  void* m = nullptr;
  void* v = nullptr;
  int64_t n = 0;
  double weight_decay = 0;
};

// Decoupled AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it, for all tensors of a run:
//   norm = sqrt(sum_squares) * gradient_scale
//   clip = min(1, max_grad_norm / (norm + 1e-6))
//   g = grad * gradient_scale * clip
//   p *= 1 - lr*wd
//   m = b1 m + (1-b1) g
//   v = b2 v + (1-b2) g²
//   p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
struct AdamW {
  std::span<const AdamTensor> tensors = {};  // host memory
  const StepScalars* scalars = nullptr;      // device memory
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  int64_t step = 1;  // t, from 1
  DType type = DType::f32;
  // 0: m and v lie on the device. Else they lie in memory of Backend::allocate_host() and pass through at
  // most so many bytes of the device, in slabs, while others are computed; a backend that reads host memory
  // takes them where they are. The results have the same bits either way.
  size_t slab_bytes = 0;
};

// One tensor of a run whose states have eight bits: codes of the dynamic maps (quant/dynamic8.h), signed for
// m and unsigned for v, and an absmax for every kAdam8Block elements. A new run's are all zeros.
inline constexpr int64_t kAdam8Block = 256;
struct Adam8Tensor {
  void* p = nullptr;
  const void* g = nullptr;
  uint8_t* m = nullptr;
  uint8_t* v = nullptr;
  float* m_absmax = nullptr;
  float* v_absmax = nullptr;
  int64_t n = 0;
  double weight_decay = 0;
};

// AdamW as bitsandbytes computes it over such states (Dettmers et al. 2022), betas in f32, no percentile
// clipping; g as in AdamW:
//   m = b1 m + (1-b1) g;   v = b2 v + (1-b2) g²;   an element whose g is no number: m = v = 0, and p stays
//   p -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps sqrt(1 - b2^t))
//   p *= 1 - lr*wd                                  (after the update)
// Then absmax is a block's largest |m| (and v), and a code that of the value nearest to m / absmax, with the
// sign of m (quant/nearest8.h). Where absmax is 0, the code of zero.
struct AdamW8 {
  std::span<const Adam8Tensor> tensors = {};  // host memory
  const StepScalars* scalars = nullptr;       // device memory
  const float* m_map = nullptr;               // host memory, 256 ascending values of both signs
  const float* v_map = nullptr;               // host memory, 256 ascending values from 0 on
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  int64_t step = 1;
  DType type = DType::f32;
};

// Elements of m (and of v) in a slab: there are two slabs, each with elements of both.
inline int64_t slab_elements(const AdamW& a) {
  int64_t all = 0;
  for (const AdamTensor& t : a.tensors) all += t.n;
  const auto most = static_cast<int64_t>(a.slab_bytes / (4 * size_of(a.type)));
  return std::min(all, std::max<int64_t>(most, 1));
}

}  // namespace qlora
