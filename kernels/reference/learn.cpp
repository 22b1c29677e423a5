// Losses, gradient norms and the optimizer.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/quant/nearest8.h"
#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

// cap tanh(x / cap), and with it x where there is no cap.
template <class T>
T capped(T x, double cap) {
  return cap > 0 ? static_cast<T>(cap) * std::tanh(x / static_cast<T>(cap)) : x;
}

template <class T>
void entropy_row(const CrossEntropy& a, int64_t row) {
  const T* x = static_cast<const T*>(a.logits) + row * a.vocab;
  int64_t best = 0;
  for (int64_t c = 1; c < a.vocab; ++c) best = x[c] > x[best] ? c : best;
  if (a.argmax != nullptr) a.argmax[row] = static_cast<int32_t>(best);
  T* dx = a.dlogits == nullptr ? nullptr : static_cast<T*>(a.dlogits) + row * a.vocab;
  T& loss = static_cast<T*>(a.loss)[row];
  int32_t target = a.targets[row];
  if (target < 0) {
    loss = 0;
    if (dx != nullptr) std::fill_n(dx, a.vocab, T{0});
    return;
  }
  T largest = capped(x[best], a.softcap), at_target = capped(x[target], a.softcap);
  double total = 0;
  for (int64_t c = 0; c < a.vocab; ++c)
    total += static_cast<double>(std::exp(capped(x[c], a.softcap) - largest));
  loss = static_cast<T>(std::log(total) + static_cast<double>(largest) - static_cast<double>(at_target));
  if (dx == nullptr) return;
  T weight = a.weights == nullptr ? T{1} : static_cast<T>(a.weights[row]);
  auto share = static_cast<T>(1.0 / total);
  for (int64_t c = 0; c < a.vocab; ++c) {
    const T logit = capped(x[c], a.softcap);
    dx[c] = weight * (std::exp(logit - largest) * share - (c == target ? T{1} : T{0}));
    if (a.softcap > 0) {
      const T t = logit / static_cast<T>(a.softcap);
      dx[c] *= T{1} - t * t;
    }
  }
}

constexpr int64_t kSquaresChunk = 4096;
constexpr int64_t kStepChunk = 4096;

// A stretch of one tensor of several; splitting all tensors alike keeps threads busy when most are small.
struct Stretch {
  size_t tensor;
  int64_t begin, end;
};

template <class Tensors>
std::vector<Stretch> stretches(const Tensors& tensors, int64_t length) {
  std::vector<Stretch> all;
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (int64_t lo = 0; lo < tensors[t].n; lo += length) {
      all.push_back({t, lo, std::min(tensors[t].n, lo + length)});
    }
  }
  return all;
}

template <class T>
double squares(const T* x, int64_t n) {
  constexpr int64_t kLanes = 8;    // sums that do not wait for each other
  constexpr int64_t kAhead = 512;  // elements; one stream by itself is followed too slowly
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    __builtin_prefetch(x + i + kAhead);
    for (int64_t j = 0; j < kLanes; ++j)
      sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  }
  for (; i < n; ++i) sums[i % kLanes] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (double s : sums) sum += s;
  return sum;
}

// The scalars of a step, as the element loop wants them.
struct Factors {
  double gradient, rate, correction1, root_correction2;
  template <class Call>
  explicit Factors(const Call& a) {
    const StepScalars& s = *a.scalars;
    double norm = std::sqrt(s.sum_squares) * s.gradient_scale;
    double clip = s.max_grad_norm > 0 ? std::min(1.0, s.max_grad_norm / (norm + 1e-6)) : 1.0;
    gradient = s.gradient_scale * clip;
    rate = s.learning_rate;
    correction1 = 1 - std::pow(a.beta1, static_cast<double>(a.step));
    root_correction2 = std::sqrt(1 - std::pow(a.beta2, static_cast<double>(a.step)));
  }
};

template <class T>
void adam(const AdamW& a, const Factors& f, const AdamTensor& tensor, int64_t begin, int64_t end) {
  auto *p = static_cast<T*>(tensor.p), *m = static_cast<T*>(tensor.m), *v = static_cast<T*>(tensor.v);
  const auto* g = static_cast<const T*>(tensor.g);
  auto keep = static_cast<T>(1 - f.rate * tensor.weight_decay), step = static_cast<T>(f.rate / f.correction1);
  auto beta1 = static_cast<T>(a.beta1), rest1 = static_cast<T>(1 - a.beta1);
  auto beta2 = static_cast<T>(a.beta2), rest2 = static_cast<T>(1 - a.beta2);
  auto scale = static_cast<T>(f.gradient), root = static_cast<T>(f.root_correction2),
       eps = static_cast<T>(a.eps);
  for (int64_t i = begin; i < end; ++i) {
    T gradient = g[i] * scale;
    m[i] = beta1 * m[i] + rest1 * gradient;
    v[i] = beta2 * v[i] + rest2 * gradient * gradient;
    p[i] = p[i] * keep - step * (m[i] / (std::sqrt(v[i]) / root + eps));
  }
}

// Elements [begin, end) of a tensor, whole blocks of states.
template <class T>
void adam8(const AdamW8& a, const Factors& f, const Adam8Tensor& tensor, int64_t begin, int64_t end) {
  auto* p = static_cast<T*>(tensor.p);
  const auto* g = static_cast<const T*>(tensor.g);
  const auto keep = static_cast<T>(1 - f.rate * tensor.weight_decay),
             step = static_cast<T>(f.rate * f.root_correction2 / f.correction1);
  // As bitsandbytes takes them, whatever T is: rounded to f32, the rest being exact.
  const T beta1 = static_cast<float>(a.beta1), rest1 = 1 - beta1;
  const T beta2 = static_cast<float>(a.beta2), rest2 = 1 - beta2;
  const auto scale = static_cast<T>(f.gradient), eps = static_cast<T>(f.root_correction2 * a.eps);
  for (; begin < end; begin += kAdam8Block) {
    float &m_absmax = tensor.m_absmax[begin / kAdam8Block], &v_absmax = tensor.v_absmax[begin / kAdam8Block];
    const int64_t n = std::min(kAdam8Block, end - begin);
    float new_m[kAdam8Block], new_v[kAdam8Block], m_largest = 0, v_largest = 0;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t i = begin + j;
      const T gradient = g[i] * scale;
      T m = 0, v = 0;
      if (std::isfinite(gradient)) {
        m = beta1 * static_cast<T>(a.m_map[tensor.m[i]] * m_absmax) + rest1 * gradient;
        v = beta2 * static_cast<T>(a.v_map[tensor.v[i]] * v_absmax) + rest2 * gradient * gradient;
        p[i] = (p[i] - step * (m / (std::sqrt(v) + eps))) * keep;
      }
      new_m[j] = static_cast<float>(m);
      new_v[j] = static_cast<float>(v);
      m_largest = std::max(m_largest, std::abs(new_m[j]));
      v_largest = std::max(v_largest, new_v[j]);
    }
    m_absmax = m_largest;
    v_absmax = v_largest;
    for (int64_t j = 0; j < n; ++j) {
      tensor.m[begin + j] =
          static_cast<uint8_t>(nearest8_signed(a.m_map, m_largest > 0 ? new_m[j] / m_largest : 0));
      tensor.v[begin + j] = static_cast<uint8_t>(nearest8(a.v_map, v_largest > 0 ? new_v[j] / v_largest : 0));
    }
  }
}

}  // namespace

void Reference::cross_entropy(const CrossEntropy& a) {
  by_compute_type(a.type, [&]<class T>(T) {
    split(a.rows, a.vocab * 32, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) entropy_row<T>(a, row);
    });
  });
}

void Reference::softcap(const Softcap& a) {
  by_compute_type(a.type, [&]<class T>(T) {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    split(a.n, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = capped(x[i], a.cap);
    });
  });
}

void Reference::sum_squares(const SumSquares& a) {
  std::vector<Stretch> chunks = stretches(a.tensors, kSquaresChunk);
  std::vector<double> partial(chunks.size());
  by_compute_type(a.type, [&]<class T>(T) {
    split(static_cast<int64_t>(chunks.size()), kSquaresChunk, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        const Stretch& c = chunks[i];
        partial[i] = squares(static_cast<const T*>(a.tensors[c.tensor].data) + c.begin, c.end - c.begin);
      }
    });
  });
  double total = 0;
  for (double sum : partial) total += sum;
  *a.out = total;
}

void Reference::adamw(const AdamW& a) {
  Factors factors(a);
  std::vector<Stretch> chunks = stretches(a.tensors, kStepChunk);
  by_compute_type(a.type, [&]<class T>(T) {
    split(static_cast<int64_t>(chunks.size()), kStepChunk * 4, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        const Stretch& c = chunks[i];
        adam<T>(a, factors, a.tensors[c.tensor], c.begin, c.end);
      }
    });
  });
}

void Reference::adamw8(const AdamW8& a) {
  static_assert(kStepChunk % kAdam8Block == 0);
  Factors factors(a);
  std::vector<Stretch> chunks = stretches(a.tensors, kStepChunk);
  by_compute_type(a.type, [&]<class T>(T) {
    split(static_cast<int64_t>(chunks.size()), kStepChunk * 16, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        const Stretch& c = chunks[i];
        adam8<T>(a, factors, a.tensors[c.tensor], c.begin, c.end);
      }
    });
  });
}

}  // namespace qlora
