// Norms, rotary embedding, and movements of rows.

#include <cmath>
#include <cstring>

#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

// Sums within a row are taken in f64: they cost little, and the error of a norm touches every later element.

// What a norm is taken of: the row of x, or its sum with the residual, which is written first.
template <class T, class Norm>
const T* normed_row(const Norm& a, int64_t row) {
  const T* x = static_cast<const T*>(a.x) + row * a.cols;
  if (a.residual == nullptr) return x;
  const T* residual = static_cast<const T*>(a.residual) + row * a.cols;
  T* total = static_cast<T*>(a.sum) + row * a.cols;
  for (int64_t c = 0; c < a.cols; ++c) total[c] = x[c] + residual[c];
  return total;
}

template <class T, class Y>
void norm(const RmsNorm& a) {
  const auto* w = static_cast<const T*>(a.w);
  split(a.rows, a.cols * 2, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = normed_row<T>(a, row);
      Y* y = static_cast<Y*>(a.y) + row * a.cols;
      double squares = 0;
      for (int64_t c = 0; c < a.cols; ++c) squares += static_cast<double>(x[c]) * static_cast<double>(x[c]);
      auto rstd = static_cast<T>(1.0 / std::sqrt(squares / static_cast<double>(a.cols) + a.eps));
      for (int64_t c = 0; c < a.cols; ++c) store(y[c], x[c] * rstd * w[c]);
      if (a.rstd != nullptr) static_cast<T*>(a.rstd)[row] = rstd;
    }
  });
}

template <class T>
void norm_backward(const RmsNormBackward& a) {
  const auto* w = static_cast<const T*>(a.w);
  const auto* before = static_cast<const T*>(a.mode == Write::accumulate ? a.dx : a.beside);
  split(a.rows, a.cols * 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.cols;
      const T* dy = static_cast<const T*>(a.dy) + row * a.cols;
      T* dx = static_cast<T*>(a.dx) + row * a.cols;
      T rstd = static_cast<const T*>(a.rstd)[row];
      double product = 0;
      for (int64_t c = 0; c < a.cols; ++c)
        product += static_cast<double>(dy[c] * w[c]) * static_cast<double>(x[c]);
      auto mean = static_cast<T>(product / static_cast<double>(a.cols));
      T pull = rstd * rstd * mean;
      for (int64_t c = 0; c < a.cols; ++c) {
        const T own = rstd * (dy[c] * w[c] - x[c] * pull);
        dx[c] = before != nullptr ? before[row * a.cols + c] + own : own;
      }
    }
  });
}

template <class T, class Y>
void layer_norm_rows(const LayerNorm& a) {
  const auto *w = static_cast<const T*>(a.w), *bias = static_cast<const T*>(a.bias);
  const auto n = static_cast<double>(a.cols);
  split(a.rows, a.cols * 3, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = normed_row<T>(a, row);
      Y* y = static_cast<Y*>(a.y) + row * a.cols;
      double sum = 0, squares = 0;
      for (int64_t c = 0; c < a.cols; ++c) sum += static_cast<double>(x[c]);
      const auto mean = static_cast<T>(sum / n);
      for (int64_t c = 0; c < a.cols; ++c) {
        const auto d = static_cast<double>(x[c] - mean);
        squares += d * d;
      }
      const auto rstd = static_cast<T>(1.0 / std::sqrt(squares / n + a.eps));
      for (int64_t c = 0; c < a.cols; ++c)
        store(y[c], (x[c] - mean) * rstd * w[c] + (bias != nullptr ? bias[c] : T{0}));
      if (a.mean != nullptr) static_cast<T*>(a.mean)[row] = mean;
      if (a.rstd != nullptr) static_cast<T*>(a.rstd)[row] = rstd;
    }
  });
}

template <class T>
void layer_norm_backward_rows(const LayerNormBackward& a) {
  const auto* w = static_cast<const T*>(a.w);
  const auto* before = static_cast<const T*>(a.mode == Write::accumulate ? a.dx : a.beside);
  const auto n = static_cast<double>(a.cols);
  split(a.rows, a.cols * 6, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.cols;
      const T* dy = static_cast<const T*>(a.dy) + row * a.cols;
      T* dx = static_cast<T*>(a.dx) + row * a.cols;
      const T mean = static_cast<const T*>(a.mean)[row], rstd = static_cast<const T*>(a.rstd)[row];
      double sum = 0, product = 0;
      for (int64_t c = 0; c < a.cols; ++c) {
        const T g = dy[c] * w[c];
        sum += static_cast<double>(g);
        product += static_cast<double>(g) * static_cast<double>((x[c] - mean) * rstd);
      }
      const auto level = static_cast<T>(sum / n), pull = static_cast<T>(product / n);
      for (int64_t c = 0; c < a.cols; ++c) {
        const T own = rstd * (dy[c] * w[c] - level - (x[c] - mean) * rstd * pull);
        dx[c] = before != nullptr ? before[row * a.cols + c] + own : own;
      }
    }
  });
}

template <class T>
void angles(const RopeTable& a) {
  auto scale = static_cast<T>(a.attention_scale);
  split(a.rows, a.half * 32, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * a.half; i < end * a.half; ++i) {
      T angle = static_cast<T>(a.positions[i / a.half]) * static_cast<T>(a.inv_freq[i % a.half]);
      static_cast<T*>(a.cos)[i] = std::cos(angle) * scale;
      static_cast<T*>(a.sin)[i] = std::sin(angle) * scale;
    }
  });
}

template <class T, class Y>
void rotate(const Rope& a) {
  const int64_t turned = rotated(a), half = turned / 2;
  split(a.rows, a.heads * a.head_dim * 2, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *cos = static_cast<const T*>(a.cos) + row * half,
              *sin = static_cast<const T*>(a.sin) + row * half;
      for (int64_t head = 0; head < a.heads; ++head) {
        int64_t offset = (row * a.heads + head) * a.head_dim;
        const T* x = static_cast<const T*>(a.x) + offset;
        Y* y = static_cast<Y*>(a.y) + offset;
        for (int64_t j = 0; j < half; ++j) {
          T x1 = x[j], x2 = x[j + half], s = a.inverse ? -sin[j] : sin[j];
          store(y[j], x1 * cos[j] - x2 * s, a.mode);
          store(y[j + half], x2 * cos[j] + x1 * s, a.mode);
        }
        for (int64_t j = turned; j < a.head_dim; ++j) store(y[j], x[j], a.mode);
      }
    }
  });
}

// From a table of any type, scaled.
template <class T, class From>
void gather_scaled(const GatherRows& a) {
  const auto scale = static_cast<T>(a.scale);
  split(a.rows, a.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const From* from = static_cast<const From*>(a.table) + a.ids[row] * a.cols;
      T* y = static_cast<T*>(a.y) + row * a.cols;
      for (int64_t c = 0; c < a.cols; ++c) y[c] = scale * widened<T>(from[c]);
    }
  });
}

template <class T>
void scatter(const ScatterRows& a) {
  auto* y = static_cast<T*>(a.y);
  if (a.mode == Write::overwrite) std::fill_n(y, a.total * a.cols, T{0});
  split(a.rows, a.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.cols;
      for (int64_t c = 0; c < a.cols; ++c) store(y[a.ids[row] * a.cols + c], x[c], a.mode);
    }
  });
}

template <class T>
void columns(const CopyColumns& a) {
  split(a.rows, a.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
      T* y = static_cast<T*>(a.y) + row * a.y_stride;
      for (int64_t c = 0; c < a.cols; ++c) store(y[c], x[c], a.mode);
    }
  });
}

}  // namespace

void Reference::rms_norm(const RmsNorm& a) {
  by_types(a.type, a.y_type, [&]<class T, class Y>(T, Y) { norm<T, Y>(a); });
}

void Reference::rms_norm_backward(const RmsNormBackward& a) {
  by_compute_type(a.type, [&]<class T>(T) { norm_backward<T>(a); });
}

void Reference::layer_norm(const LayerNorm& a) {
  by_types(a.type, a.y_type, [&]<class T, class Y>(T, Y) { layer_norm_rows<T, Y>(a); });
}

void Reference::layer_norm_backward(const LayerNormBackward& a) {
  by_compute_type(a.type, [&]<class T>(T) { layer_norm_backward_rows<T>(a); });
}

void Reference::rope_table(const RopeTable& a) {
  by_compute_type(a.type, [&]<class T>(T) { angles<T>(a); });
}

void Reference::rope(const Rope& a) {
  by_types(a.type, a.y_type, [&]<class T, class Y>(T, Y) { rotate<T, Y>(a); });
}

void Reference::gather_rows(const GatherRows& a) {
  if (a.table_type == DType::bf16) {
    return by_compute_type(a.type, [&]<class T>(T) { gather_scaled<T, bf16>(a); });
  }
  if (a.scale != 1) return by_compute_type(a.type, [&]<class T>(T) { gather_scaled<T, T>(a); });
  size_t bytes = static_cast<size_t>(a.cols) * size_of(a.type);
  split(a.rows, a.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(static_cast<std::byte*>(a.y) + static_cast<size_t>(row) * bytes,
                  static_cast<const std::byte*>(a.table) + static_cast<size_t>(a.ids[row]) * bytes, bytes);
    }
  });
}

void Reference::scatter_rows(const ScatterRows& a) {
  by_compute_type(a.type, [&]<class T>(T) { scatter<T>(a); });
}

void Reference::copy_columns(const CopyColumns& a) {
  by_compute_type(a.type, [&]<class T>(T) { columns<T>(a); });
}

}  // namespace qlora
