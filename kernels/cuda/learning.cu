// Losses, gradient norms and the optimizer.

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/cuda/uploads.h"
#include "kernels/quant/nearest8.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;

struct Entropy {
  float largest[kMostWarps];
  double sums[kMostWarps];
  int first[kMostWarps];
};

// x, or cap tanh(x / cap).
template <bool kCapped>
__device__ __forceinline__ float logit_of(float x, float cap) {
  return kCapped ? cap * tanhf(x / cap) : x;
}

// loss = log(sum exp(x - largest)) + largest - x[target];  dx = weight (softmax(x) - onehot).  A block a row.
// kCapped: of capped logits; dx is then times 1 - (capped x / cap)².
template <bool kCapped>
__global__ void __launch_bounds__(kThreads)
    entropy(CrossEntropy a, const int32_t* targets, const float* weights) {
  auto& shared = shared_as<Entropy>();
  const int64_t row = blockIdx.x;
  const float* x = static_cast<const float*>(a.logits) + row * a.vocab;
  float* dx = a.dlogits == nullptr ? nullptr : static_cast<float*>(a.dlogits) + row * a.vocab;
  const int32_t target = targets[row];
  float mine = -INFINITY;
  int where = 0x7fffffff;
  for (int64_t c = threadIdx.x; c < a.vocab; c += kThreads) {
    if (x[c] > mine) {
      mine = x[c];
      where = static_cast<int>(c);
    }
  }
  const float most = block_max(mine, shared.largest);
  if (a.argmax != nullptr) {
    const int first = block_min(mine == most ? where : 0x7fffffff, shared.first);
    if (threadIdx.x == 0) a.argmax[row] = first < a.vocab ? first : 0;  // none is larger than NaN
  }
  float* loss = static_cast<float*>(a.loss) + row;
  if (target < 0) {
    if (threadIdx.x == 0) *loss = 0;
    for (int64_t c = threadIdx.x; dx != nullptr && c < a.vocab; c += kThreads) dx[c] = 0;
    return;
  }
  const auto cap = static_cast<float>(a.softcap);
  const float largest = logit_of<kCapped>(most, cap);
  double total = 0;
  for (int64_t c = threadIdx.x; c < a.vocab; c += kThreads)
    total += static_cast<double>(expf(logit_of<kCapped>(x[c], cap) - largest));
  total = block_sum(total, shared.sums);
  if (threadIdx.x == 0)
    *loss = static_cast<float>(log(total) + static_cast<double>(largest) -
                               static_cast<double>(logit_of<kCapped>(x[target], cap)));
  if (dx == nullptr) return;
  // dx may lie over x, and thread 0 has just read x[target].
  __syncthreads();
  const float weight = weights == nullptr ? 1.0f : weights[row], share = static_cast<float>(1.0 / total);
  for (int64_t c = threadIdx.x; c < a.vocab; c += kThreads) {
    const float logit = logit_of<kCapped>(x[c], cap);
    const float slope = weight * (expf(logit - largest) * share - (c == target ? 1.0f : 0.0f));
    dx[c] = kCapped ? slope * (1.0f - logit / cap * (logit / cap)) : slope;
  }
}

__global__ void __launch_bounds__(kThreads) cap_all(const float* x, float* y, int64_t n, float cap) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) y[i] = logit_of<true>(x[i], cap);
}

// A stretch of at most kStretch elements of one tensor.
struct Stretch {
  int32_t tensor = 0;
  int32_t length = 0;
  int64_t begin = 0;
};
static_assert(sizeof(Stretch) == kStretchBytes);

template <class Tensors>
std::vector<Stretch> stretches(const Tensors& tensors) {
  std::vector<Stretch> all;
  for (size_t t = 0; t < tensors.size(); ++t)
    for (int64_t lo = 0; lo < tensors[t].n; lo += kStretch)
      all.push_back(
          {static_cast<int32_t>(t), static_cast<int32_t>(std::min(kStretch, tensors[t].n - lo)), lo});
  return all;
}

__global__ void __launch_bounds__(kThreads)
    squares(const TensorRef* tensors, const Stretch* chunks, double* partial) {
  auto& shared = shared_as<BlockSums>();
  const Stretch s = chunks[blockIdx.x];
  const float* x = static_cast<const float*>(tensors[s.tensor].data) + s.begin;
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < s.length; i += kThreads)
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  sum = block_sum(sum, shared.sums);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: thread t adds the partials t, t + 256, ...
__global__ void __launch_bounds__(kThreads) total(const double* partial, int64_t n, double* out) {
  auto& shared = shared_as<BlockSums>();
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += partial[i];
  sum = block_sum(sum, shared.sums);
  if (threadIdx.x == 0) *out = sum;
}

struct Adam {
  double beta1, beta2, eps, correction1, root_correction2;
  const StepScalars* scalars;
};
template <class Call>
Adam constants_of(const Call& a) {
  const auto t = static_cast<double>(a.step);
  return {a.beta1, a.beta2, a.eps, 1 - std::pow(a.beta1, t), std::sqrt(1 - std::pow(a.beta2, t)), a.scalars};
}

// What an element's gradient is multiplied by.
__device__ __forceinline__ float scale_of(const StepScalars& step) {
  const double norm = sqrt(step.sum_squares) * step.gradient_scale;
  const double clip = step.max_grad_norm > 0 ? fmin(1.0, step.max_grad_norm / (norm + 1e-6)) : 1.0;
  return static_cast<float>(step.gradient_scale * clip);
}

// The formulas of args_train.h; a block a stretch.
__global__ void __launch_bounds__(kThreads) adam(Adam a, const AdamTensor* tensors, const Stretch* chunks) {
  const Stretch s = chunks[blockIdx.x];
  const AdamTensor t = tensors[s.tensor];
  const StepScalars& step = *a.scalars;
  const float scale = scale_of(step);
  const auto keep = static_cast<float>(1 - step.learning_rate * t.weight_decay);
  const auto rate = static_cast<float>(step.learning_rate / a.correction1);
  const auto beta1 = static_cast<float>(a.beta1), rest1 = static_cast<float>(1 - a.beta1);
  const auto beta2 = static_cast<float>(a.beta2), rest2 = static_cast<float>(1 - a.beta2);
  const auto root = static_cast<float>(a.root_correction2), eps = static_cast<float>(a.eps);
  for (int64_t i = s.begin + threadIdx.x; i < s.begin + s.length; i += kThreads) {
    const float g = static_cast<const float*>(t.g)[i] * scale;
    const float m = beta1 * static_cast<float*>(t.m)[i] + rest1 * g;
    const float v = beta2 * static_cast<float*>(t.v)[i] + rest2 * g * g;
    static_cast<float*>(t.m)[i] = m;
    static_cast<float*>(t.v)[i] = v;
    float& p = static_cast<float*>(t.p)[i];
    p = p * keep - rate * (m / (sqrtf(v) / root + eps));
  }
}

struct Adam8Shared {
  float m_map[256], v_map[256], largest[kMostWarps];
};

// AdamW8's; a block a stretch, block of states after block. Each operation is rounded by itself, as on the
// host.
__global__ void __launch_bounds__(kThreads)
    adam8(Adam a, const Adam8Tensor* tensors, const Stretch* chunks, const float* m_map, const float* v_map) {
  static_assert(kThreads == kAdam8Block && kStretch % kAdam8Block == 0);
  auto& shared = shared_as<Adam8Shared>();
  shared.m_map[threadIdx.x] = m_map[threadIdx.x];
  shared.v_map[threadIdx.x] = v_map[threadIdx.x];
  __syncthreads();
  const Stretch s = chunks[blockIdx.x];
  const Adam8Tensor t = tensors[s.tensor];
  const StepScalars& step = *a.scalars;
  const float scale = scale_of(step);
  const auto keep = static_cast<float>(1 - step.learning_rate * t.weight_decay);
  const auto rate = static_cast<float>(step.learning_rate * a.root_correction2 / a.correction1);
  const auto beta1 = static_cast<float>(a.beta1), rest1 = 1.0f - beta1;
  const auto beta2 = static_cast<float>(a.beta2), rest2 = 1.0f - beta2;
  const auto eps = static_cast<float>(a.root_correction2 * a.eps);
  for (int64_t begin = s.begin; begin < s.begin + s.length; begin += kAdam8Block) {
    const int64_t i = begin + threadIdx.x, block = begin / kAdam8Block;
    const bool inside = i < s.begin + s.length;
    const float g = inside ? __fmul_rn(static_cast<const float*>(t.g)[i], scale) : 0.0f;
    float m = 0, v = 0;
    if (inside && fabsf(g) < INFINITY) {
      m = __fmul_rn(shared.m_map[t.m[i]], t.m_absmax[block]);
      v = __fmul_rn(shared.v_map[t.v[i]], t.v_absmax[block]);
      m = __fadd_rn(__fmul_rn(beta1, m), __fmul_rn(rest1, g));
      v = __fadd_rn(__fmul_rn(beta2, v), __fmul_rn(__fmul_rn(rest2, g), g));
      float& p = static_cast<float*>(t.p)[i];
      p = __fmul_rn(__fadd_rn(p, -__fmul_rn(rate, m / __fadd_rn(sqrtf(v), eps))), keep);
    }
    // All threads have read the block's scales when its largest values are known.
    const float m_largest = block_max(fabsf(m), shared.largest), v_largest = block_max(v, shared.largest);
    if (inside) {
      t.m[i] = static_cast<uint8_t>(nearest8_signed(shared.m_map, m_largest > 0 ? m / m_largest : 0.0f));
      t.v[i] = static_cast<uint8_t>(nearest8(shared.v_map, v_largest > 0 ? v / v_largest : 0.0f));
    }
    if (threadIdx.x == 0) {
      t.m_absmax[block] = m_largest;
      t.v_absmax[block] = v_largest;
    }
  }
}

}  // namespace

void cross_entropy(Device& d, const CrossEntropy& a) {
  if (a.rows == 0) return;
  d.uploads.begin();
  const auto rows = static_cast<size_t>(a.rows);
  d.stream.launch(a.softcap > 0 ? entropy<true> : entropy<false>, dim3(static_cast<unsigned>(a.rows)),
                  dim3(kThreads), sizeof(Entropy), a, d.uploads.put(d.stream, a.targets, rows),
                  d.uploads.put(d.stream, a.weights, rows));
}

void softcap(Device& d, const Softcap& a) {
  if (a.n > 0)
    d.stream.launch(cap_all, dim3(blocks_for(a.n, kThreads)), dim3(kThreads), 0,
                    static_cast<const float*>(a.x), static_cast<float*>(a.y), a.n, static_cast<float>(a.cap));
}

void sum_squares(Device& d, const SumSquares& a) {
  const std::vector<Stretch> chunks = stretches(a.tensors);
  auto* partial = d.room<double>(Room::partials, chunks.size());
  if (!chunks.empty()) {
    d.uploads.begin();
    d.stream.launch(squares, dim3(static_cast<unsigned>(chunks.size())), dim3(kThreads), sizeof(BlockSums),
                    d.uploads.put(d.stream, a.tensors.data(), a.tensors.size()),
                    d.uploads.put(d.stream, chunks.data(), chunks.size()), partial);
  }
  d.stream.launch(total, dim3(1), dim3(kThreads), sizeof(BlockSums), partial,
                  static_cast<int64_t>(chunks.size()), a.out);
}

void adam_step(Device& d, const AdamW& a, std::span<const AdamTensor> tensors) {
  const std::vector<Stretch> chunks = stretches(tensors);
  if (chunks.empty()) return;
  d.uploads.begin();
  d.stream.launch(adam, dim3(static_cast<unsigned>(chunks.size())), dim3(kThreads), 0, constants_of(a),
                  d.uploads.put(d.stream, tensors.data(), tensors.size()),
                  d.uploads.put(d.stream, chunks.data(), chunks.size()));
}

void adamw(Device& d, const AdamW& a) {
  if (a.slab_bytes > 0) return adamw_paged(d, a);
  adam_step(d, a, a.tensors);
}

void adamw8(Device& d, const AdamW8& a) {
  const std::vector<Stretch> chunks = stretches(a.tensors);
  if (chunks.empty()) return;
  d.uploads.begin();
  d.stream.launch(adam8, dim3(static_cast<unsigned>(chunks.size())), dim3(kThreads), sizeof(Adam8Shared),
                  constants_of(a), d.uploads.put(d.stream, a.tensors.data(), a.tensors.size()),
                  d.uploads.put(d.stream, chunks.data(), chunks.size()),
                  d.uploads.put(d.stream, a.m_map, 256), d.uploads.put(d.stream, a.v_map, 256));
}

}  // namespace qlora::cuda
