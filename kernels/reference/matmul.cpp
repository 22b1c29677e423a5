// Products. Every layout becomes the same loop: sixteen columns of w are laid out as a panel [k, 16], and
// each row of x runs over it once. An output is one sum over k in ascending order, whatever the shapes around
// it.

#include <cstring>
#include <vector>

#include "core/base/half.h"
#include "kernels/quant/decode.h"
#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

constexpr int64_t kPanel = 16;
constexpr int64_t kRowBlock = 32;

// y[i, j] (+)= alpha * sum over k of x[i * row_stride + k * k_stride] * w(k, j)
template <class T>
struct Product {
  const T* x;
  int64_t row_stride, k_stride;
  T* y;
  int64_t m, n, k;
  T alpha;
  Write mode;
};

template <class T>
void multiply_row(const Product<T>& p, const T* panel, int64_t row, int64_t column, int64_t width) {
  T sum[kPanel] = {};
  const T* x = p.x + row * p.row_stride;
  for (int64_t k = 0; k < p.k; ++k) {
    T value = x[k * p.k_stride];
    for (int64_t j = 0; j < kPanel; ++j) sum[j] += value * panel[k * kPanel + j];
  }
  T* y = p.y + row * p.n + column;
  for (int64_t j = 0; j < width; ++j) store(y[j], p.alpha * sum[j], p.mode);
}

// fill(column, width, panel) writes columns [column, column + width) of w to panel[k * kPanel + j].
template <class T, class Fill>
void multiply(const Product<T>& p, Fill&& fill) {
  int64_t row_blocks = (p.m + kRowBlock - 1) / kRowBlock, panels = (p.n + kPanel - 1) / kPanel;
  int64_t work = std::min(p.m, kRowBlock) * kPanel * std::max<int64_t>(p.k, 1);
  split(row_blocks * panels, work, [&](int64_t begin, int64_t end) {
    std::vector<T> panel(static_cast<size_t>(p.k * kPanel));
    int64_t filled = -1;
    for (int64_t tile = begin; tile < end; ++tile) {
      int64_t column = tile / row_blocks * kPanel, width = std::min(kPanel, p.n - column);
      if (filled != column) fill(column, width, panel.data());
      filled = column;
      int64_t first = tile % row_blocks * kRowBlock, last = std::min(p.m, first + kRowBlock);
      for (int64_t row = first; row < last; ++row) multiply_row(p, panel.data(), row, column, width);
    }
  });
}

// x, stored as X, as the product reads it: itself, or a rounded copy in `room`.
template <class X, class T>
void round_to(const void* x, int64_t n, Operands operands, std::vector<T>& room) {
  const auto* values = static_cast<const X*>(x);
  room.resize(static_cast<size_t>(n));
  split(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      room[static_cast<size_t>(i)] = operand(widened<T>(values[i]), operands);
  });
}
template <class T>
const T* operands_of(const void* x, DType type, int64_t n, Operands operands, std::vector<T>& room) {
  if (operands == Operands::as_stored) return static_cast<const T*>(x);
  type == DType::bf16 ? round_to<bf16>(x, n, operands, room) : round_to<T>(x, n, operands, room);
  return room.data();
}

template <class T, class W>
void dense_product(const Gemm& a) {
  const auto* w = static_cast<const W*>(a.w);
  std::vector<T> room;
  bool transposed_x = a.layout == Layout::tn;
  Product<T> p{operands_of(a.x, a.x_type, a.m * a.k, a.operands, room),
               transposed_x ? 1 : a.k,
               transposed_x ? a.m : 1,
               static_cast<T*>(a.y),
               a.m,
               a.n,
               a.k,
               static_cast<T>(a.alpha),
               a.mode};
  // Strides of w along k and along the columns of y.
  int64_t along_k = a.layout == Layout::nt ? 1 : a.n, along_n = a.layout == Layout::nt ? a.k : 1;
  multiply(p, [&](int64_t column, int64_t width, T* panel) {
    for (int64_t k = 0; k < a.k; ++k) {
      for (int64_t j = 0; j < width; ++j)
        panel[k * kPanel + j] = operand(widened<T>(w[k * along_k + (column + j) * along_n]), a.operands);
    }
  });
}

template <class T>
void quantized_product(const QGemm& a) {
  bool forward = a.layout == Layout::nt;
  int64_t n = forward ? a.w.out : a.w.in, k_size = forward ? a.w.in : a.w.out;
  std::vector<T> room;
  Product<T> p{operands_of(a.x, a.x_type, a.rows * k_size, a.operands, room),
               k_size,
               1,
               static_cast<T*>(a.y),
               a.rows,
               n,
               k_size,
               T{1},
               a.mode};
  multiply(p, [&](int64_t column, int64_t width, T* panel) {
    if (forward) {
      std::vector<float> row(static_cast<size_t>(k_size));
      for (int64_t j = 0; j < width; ++j) {
        decode_range(a.w, (column + j) * k_size, (column + j + 1) * k_size, row.data());
        for (int64_t k = 0; k < k_size; ++k)
          panel[k * kPanel + j] = static_cast<T>(operand(row[static_cast<size_t>(k)], a.operands));
      }
    } else {
      float row[kPanel];
      for (int64_t k = 0; k < k_size; ++k) {
        decode_range(a.w, k * n + column, k * n + column + width, row);
        for (int64_t j = 0; j < width; ++j)
          panel[k * kPanel + j] = static_cast<T>(operand(row[j], a.operands));
      }
    }
  });
}

void convert(float value, float& out) {
  out = value;
}
void convert(float value, double& out) {
  out = value;
}
void convert(float value, bf16& out) {
  out = to_bf16(value);
}
void convert(float value, f16& out) {
  out = to_f16(value);
}

template <class T>
void decode_to(const WeightView& w, T* out) {
  constexpr int64_t kChunk = 1024;
  int64_t n = w.out * w.in;
  split((n + kChunk - 1) / kChunk, kChunk, [&](int64_t begin, int64_t end) {
    float values[kChunk];
    for (int64_t lo = begin * kChunk; lo < std::min(n, end * kChunk); lo += kChunk) {
      int64_t hi = std::min(n, lo + kChunk);
      decode_range(w, lo, hi, values);
      for (int64_t i = lo; i < hi; ++i) convert(values[i - lo], out[i]);
    }
  });
}

}  // namespace

void Reference::gemm(const Gemm& a) {
  by_compute_type(a.type, [&]<class T>(T) {
    a.w_type == DType::bf16 ? dense_product<T, bf16>(a) : dense_product<T, T>(a);
  });
}

void Reference::qgemm(const QGemm& a) {
  if (a.w.format == Format::dense) {
    bool forward = a.layout == Layout::nt;
    return gemm({.layout = a.layout,
                 .x = a.x,
                 .w = a.w.data,
                 .y = a.y,
                 .m = a.rows,
                 .n = forward ? a.w.out : a.w.in,
                 .k = forward ? a.w.in : a.w.out,
                 .mode = a.mode,
                 .type = a.type,
                 .w_type = a.w.type,
                 .operands = a.operands,
                 .x_type = a.x_type});
  }
  by_compute_type(a.type, [&]<class T>(T) { quantized_product<T>(a); });
}

void Reference::dequantize(const Dequantize& a) {
  const int64_t n = a.w.out * a.w.in;
  if (a.w.format == Format::dense && a.w.type == a.type) {
    std::memcpy(a.dst, a.w.data, static_cast<size_t>(n) * size_of(a.type));
    return;
  }
  if (a.w.format == Format::dense) {
    return by_compute_type(a.type, [&]<class T>(T) {
      const auto* from = static_cast<const bf16*>(a.w.data);
      split(n, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) static_cast<T*>(a.dst)[i] = widened<T>(from[i]);
      });
    });
  }
  switch (a.type) {
    case DType::f64:
      return decode_to(a.w, static_cast<double*>(a.dst));
    case DType::bf16:
      return decode_to(a.w, static_cast<bf16*>(a.dst));
    case DType::f16:
      return decode_to(a.w, static_cast<f16*>(a.dst));
    default:
      return decode_to(a.w, static_cast<float*>(a.dst));
  }
}

}  // namespace qlora
