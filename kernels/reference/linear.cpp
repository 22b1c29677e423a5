// The linear layer with its adapters, composed of products: correct for every backend that overrides them, as
// long as a product's row has the same bits whatever rows stand around it.

#include "core/base/philox.h"
#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

const void* at(const void* p, int64_t element, DType type) {
  return static_cast<const std::byte*>(p) + static_cast<size_t>(element) * size_of(type);
}
void* at(void* p, int64_t element, DType type) {
  return static_cast<std::byte*>(p) + static_cast<size_t>(element) * size_of(type);
}

size_t bytes_of(int64_t elements, DType type) {
  return static_cast<size_t>(elements) * size_of(type);
}

constexpr int64_t kDropRows = 64;  // at a time: the dropped copy stays small (planned in kernels/scratch.cpp)

bool empty(const LoraPart& part) {
  return part.hi <= part.lo || part.rank <= 0;
}

// The bits of four columns of a row, as LoraPart::kept has them.
uint32_t draw(const Dropout& d, RowKey key, int64_t column) {
  const Philox4 numbers = philox(d.key, static_cast<uint32_t>(column / 4), key.position, key.example, d.step);
  uint32_t bits = 0;
  for (uint32_t j = 0; j < 4; ++j) bits |= (uniform01(numbers.v[j]) >= d.p ? 1u : 0u) << j;
  return bits;
}

// S: of what is stored, T or bf16.
template <class T, class S>
void drop(const DropRows& a) {
  const auto factor = static_cast<T>(a.factor);
  split(a.rows, a.cols * 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const S* x = static_cast<const S*>(a.x) + row * a.cols;
      S* y = static_cast<S*>(a.y) + row * a.cols;
      const uint8_t* kept = a.kept == nullptr ? nullptr : a.kept + row * kept_bytes(a.cols);
      for (int64_t column = 0; column < a.cols; column += 4) {
        const uint32_t bits = kept == nullptr ? draw(a.dropout, a.keys[row], column)
                                              : static_cast<uint32_t>(kept[column / 8]) >> (column % 8);
        int64_t width = std::min<int64_t>(4, a.cols - column);
        for (int64_t j = 0; j < width; ++j) {
          bool keep = (bits >> j & 1) != 0;
          store(y[column + j], keep ? widened<T>(x[column + j]) * factor : T{0}, a.mode);
        }
      }
    }
  });
}

// LoraPart::kept of all rows.
void draw_kept(const Linear& a, const LinearTerm& term, const LoraPart& part) {
  uint8_t* bits = part.kept;
  for (int64_t row = part.lo; row < part.hi; ++row, bits += kept_bytes(term.w.in))
    for (int64_t column = 0; column < term.w.in; column += 8)
      bits[column / 8] = static_cast<uint8_t>(draw(part.dropout, a.keys[row], column) |
                                              draw(part.dropout, a.keys[row], column + 4) << 4);
}

}  // namespace

float dropout_factor(float p) {
  return static_cast<float>(1.0 / (1.0 - static_cast<double>(p)));
}

void Reference::drop_rows(const DropRows& a) {
  by_types(a.type, a.type, [&]<class T, class S>(T, S) { drop<T, S>(a); });
}

void Reference::linear(const Linear& a) {
  if (a.rows == 0) return;
  base_products(a);
  for (const LinearTerm& term : a.terms)
    for (const LoraPart& part : term.lora)
      if (!empty(part)) part_forward(a, term, part);
  add_biases(a);
}

void Reference::base_products(const Linear& a) {
  for (const LinearTerm& term : a.terms)
    if (term.y != nullptr)
      qgemm({.layout = Layout::nt,
             .x = a.x,
             .w = term.w,
             .y = term.y,
             .rows = a.rows,
             .type = a.type,
             .operands = a.operands,
             .numerics = a.numerics,
             .x_type = a.x_type});
}

// u = f * keep(x) aᵀ;  y += scale * u bᵀ, some rows at a time.
void Reference::part_forward(const Linear& a, const LinearTerm& term, const LoraPart& part) {
  const int64_t in = term.w.in, out = term.w.out;
  if (part.kept != nullptr && part.dropout.p > 0) draw_kept(a, term, part);
  for (int64_t lo = part.lo; lo < part.hi; lo += kDropRows) {
    const int64_t rows = std::min(kDropRows, part.hi - lo);
    const void* x = at(a.x, lo * in, a.x_type);
    void* u = at(part.u, (lo - part.lo) * part.rank, a.type);
    if (part.dropout.p > 0) {
      void* dropped = scratch(Scratch::dropped, bytes_of(rows * in, a.x_type));
      drop_rows({.x = x,
                 .y = dropped,
                 .rows = rows,
                 .cols = in,
                 .keys = a.keys + lo,
                 .dropout = part.dropout,
                 .type = a.x_type});
      x = dropped;
    }
    gemm({.layout = Layout::nt,
          .x = x,
          .w = part.a,
          .y = u,
          .m = rows,
          .n = part.rank,
          .k = in,
          .alpha = dropout_factor(part.dropout.p),
          .type = a.type,
          .operands = a.operands,
          .x_type = a.x_type});
    if (term.y == nullptr) continue;
    gemm({.layout = Layout::nt,
          .x = u,
          .w = part.b,
          .y = at(term.y, lo * out, a.type),
          .m = rows,
          .n = out,
          .k = part.rank,
          .alpha = part.scale,
          .mode = Write::accumulate,
          .type = a.type,
          .operands = a.operands});
  }
}

void Reference::add_biases(const Linear& a) {
  for (const LinearTerm& term : a.terms) {
    if (term.bias == nullptr || term.y == nullptr) continue;
    by_compute_type(a.type, [&]<class T>(T) {
      int64_t out = term.w.out;
      const auto* bias = static_cast<const T*>(term.bias);
      split(a.rows, out, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          T* y = static_cast<T*>(term.y) + row * out;
          for (int64_t j = 0; j < out; ++j) y[j] += bias[j];
        }
      });
    });
  }
}

void Reference::linear_backward(const LinearBackward& a) {
  if (a.rows == 0 || a.terms.empty()) return;
  int64_t in = a.terms[0].w.in;
  // A destination that already holds something receives the finished sum once.
  bool aside = a.dx != nullptr && a.mode == Write::accumulate;
  void* dx = aside ? scratch(Scratch::sum, bytes_of(a.rows * in, a.type)) : a.dx;
  Write mode = Write::overwrite;
  for (const LinearBackwardTerm& term : a.terms) {
    if (dx != nullptr) {
      qgemm({.layout = Layout::nn,
             .x = term.dy,
             .w = term.w,
             .y = dx,
             .rows = a.rows,
             .mode = mode,
             .type = a.type,
             .operands = a.operands});
    }
    mode = Write::accumulate;
    for (const LoraPart& part : term.lora) {
      if (!empty(part)) part_backward(a, term, part, dx);
    }
  }
  if (aside) add({.a = a.dx, .b = dx, .y = a.dx, .n = a.rows * in, .type = a.type});
}

// du = scale * dy b;  grad_b += scale * dyᵀ u;  grad_a += f * duᵀ keep(x);  dx += keep(f * du a)
void Reference::part_backward(const LinearBackward& a, const LinearBackwardTerm& term, const LoraPart& part,
                              void* dx) {
  int64_t rows = part.hi - part.lo, in = term.w.in, out = term.w.out, rank = part.rank;
  bool drops = part.dropout.p > 0;
  const float factor = dropout_factor(part.dropout.p);
  DropRows dropping{.cols = in, .dropout = part.dropout, .type = a.type};
  // Whose rows, counted from the part's first, are dropped next.
  const auto at_row = [&](int64_t row) {
    if (part.kept != nullptr)
      dropping.kept = part.kept + row * kept_bytes(in);
    else
      dropping.keys = a.keys + part.lo + row;
  };

  const void* dy = at(term.dy, part.lo * out, a.type);
  void* du = scratch(Scratch::low_rank, bytes_of(rows * rank, a.type));
  gemm({.layout = Layout::nn,
        .x = dy,
        .w = part.b,
        .y = du,
        .m = rows,
        .n = rank,
        .k = out,
        .alpha = part.scale,
        .type = a.type,
        .operands = a.operands});

  // One product per sequence: each sums its own rows from zero and is added once.
  for (size_t s = 0; s + 1 < a.sequences.size(); ++s) {
    int64_t lo = std::max<int64_t>(a.sequences[s], part.lo) - part.lo;
    int64_t hi = std::min<int64_t>(a.sequences[s + 1], part.hi) - part.lo;
    if (hi <= lo) continue;
    Gemm partial{.layout = Layout::tn,
                 .k = hi - lo,
                 .mode = Write::accumulate,
                 .type = a.type,
                 .operands = a.operands};
    if (part.grad_b != nullptr) {
      partial.x = at(dy, lo * out, a.type);
      partial.w = at(part.u, lo * rank, a.type);
      partial.y = part.grad_b;
      partial.m = out;
      partial.n = rank;
      partial.alpha = part.scale;
      gemm(partial);
    }
    if (part.grad_a != nullptr) {
      partial.x = at(du, lo * rank, a.type);
      partial.w = at(a.x, (part.lo + lo) * in, a.x_type);
      partial.w_type = a.x_type;
      if (drops) {
        dropping.x = partial.w;
        dropping.y = scratch(Scratch::dropped, bytes_of((hi - lo) * in, a.x_type));
        dropping.type = a.x_type;
        dropping.rows = hi - lo;
        at_row(lo);
        drop_rows(dropping);
        partial.w = dropping.y;
      }
      partial.y = part.grad_a;
      partial.m = rank;
      partial.n = in;
      partial.alpha = factor;
      gemm(partial);
    }
  }
  if (dx == nullptr) return;
  for (int64_t lo = 0; lo < rows; lo += kDropRows) {
    dropping.rows = std::min(kDropRows, rows - lo);
    void* share = at(dx, (part.lo + lo) * in, a.type);
    Gemm back{.layout = Layout::nn,
              .x = at(du, lo * rank, a.type),
              .w = part.a,
              .y = share,
              .m = dropping.rows,
              .n = in,
              .k = rank,
              .mode = Write::accumulate,
              .type = a.type,
              .operands = a.operands};
    if (drops) {
      back.y = scratch(Scratch::delta, bytes_of(dropping.rows * in, a.type));
      back.mode = Write::overwrite;
    }
    gemm(back);
    if (!drops) continue;
    dropping.x = back.y;
    dropping.y = share;
    dropping.factor = factor;
    dropping.type = a.type;
    at_row(lo);
    dropping.mode = Write::accumulate;
    drop_rows(dropping);
  }
}

}  // namespace qlora
