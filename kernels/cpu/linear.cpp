#include "kernels/cpu/linear.h"

#include <iterator>
#include <utility>
#include <vector>

#include "kernels/cpu/tasks.h"
#include "kernels/quant/tables.h"
#include "kernels/reference/reference.h"

namespace qlora::cpu {
namespace {

const float* f32(const void* p) {
  return static_cast<const float*>(p);
}
float* f32(void* p) {
  return static_cast<float*>(p);
}

// x of a call from `element` on: the one of the two as which it is stored, null for the other.
template <class Call>
const float* plain_x(const Call& a, int64_t element = 0) {
  return a.x_type == DType::bf16 ? nullptr : f32(a.x) + element;
}
template <class Call>
const uint16_t* stored_x(const Call& a, int64_t element = 0) {
  return a.x_type == DType::bf16 ? static_cast<const uint16_t*>(a.x) + element : nullptr;
}

// The levels of every format, as the kernels look them up.
const float* levels_of(Format format) {
  struct Levels {
    alignas(64) float value[std::size(kFormats) + 1][256] = {};
    Levels() {
      for (Format f : kFormats)
        with_format(f, [&]<class F>(F) {
          for (int i = 0; i < F::kLevels; ++i) value[static_cast<int>(f)][i] = F::level(i);
        });
    }
  };
  static const Levels levels;
  return levels.value[static_cast<int>(format)];
}

constexpr int64_t kFewRowsMost = 32;  // at least what the kernels of few rows take

bool empty(const LoraPart& part) {
  return part.hi <= part.lo || part.rank <= 0;
}

Kept kept_of(const LoraPart& part, int64_t in) {
  if (part.dropout.p <= 0) return {};
  return {part.kept, kept_bytes(in), dropout_factor(part.dropout.p)};
}

Draw draw_of(const LoraPart& part, const RowKey* keys) {
  if (part.dropout.p <= 0) return {};
  return {keys + part.lo, part.dropout.key, part.dropout.step, part.dropout.p};
}

void (*product(const Kernels& kernels, Operands operands))(const GemmArgs&) {
  return gemm_of(kernels, operands);
}

void run(const Kernels& kernels, Operands operands, std::vector<ThinProduct>& products) {
  if (products.empty()) return;
  thin_of(kernels, operands)(products.data(), static_cast<int64_t>(products.size()));
}

// Whether an adapter's products with x or dy take the rows that are packed for the base's product: not where
// packing costs more than a thin product, nor where dropout takes elements out, nor for some of the rows.
bool shares_rows(Operands operands, int64_t rows, const LoraPart& part) {
  return operands == Operands::bf16_amx && rows > kFewRowsMost && part.lo == 0 && part.hi == rows &&
         part.dropout.p <= 0;
}

// Whether products of few rows with these weights, which share x, pack it in one way
// (small_rows_take<AmxTiles>).
bool pack_alike(Operands operands, const WeightView& v, const WeightView& w) {
  return operands == Operands::bf16_amx && v.format != Format::dense && v.format == w.format &&
         v.block == w.block;
}

// u = x aᵀ
GemmArgs shared_product_of_u(const Linear& a, const LinearTerm& term, const LoraPart& part) {
  return {.layout = Layout::nt,
          .x = plain_x(a),
          .x_bf16 = stored_x(a),
          .dense = f32(part.a),
          .y = f32(part.u),
          .ldx = term.w.in,
          .ldw = term.w.in,
          .ldy = part.rank,
          .m = a.rows,
          .n = part.rank,
          .k = term.w.in};
}

// u = f * keep(x) aᵀ
ThinProduct product_of_u(const Linear& a, const LinearTerm& term, const LoraPart& part) {
  return {.thin = f32(part.a),
          .wide = plain_x(a, part.lo * term.w.in),
          .wide_bf16 = stored_x(a, part.lo * term.w.in),
          .y = f32(part.u),
          .y_by_n = true,
          .m = part.rank,
          .n = part.hi - part.lo,
          .k = term.w.in,
          .alpha = dropout_factor(part.dropout.p),
          .draw = draw_of(part, a.keys),
          .draw_cols = term.w.in,
          .kept = kept_of(part, term.w.in),
          .drops = part.dropout.p > 0};
}

// An adapter's part in a backward call: where its du and its dropout's bits lie.
struct BackwardPart {
  const LinearBackwardTerm* term = nullptr;
  const LoraPart* part = nullptr;
  float* du = nullptr;
  Kept kept = {};
  int64_t rows() const { return part->hi - part->lo; }
};

// Whether backward draws its dropout.
bool draws(const LoraPart& part) {
  return part.dropout.p > 0 && part.kept == nullptr;
}

std::vector<BackwardPart> parts_of(const LinearBackward& a) {
  std::vector<BackwardPart> parts;
  int64_t du = 0, bits = 0;
  for (const LinearBackwardTerm& term : a.terms)
    for (const LoraPart& part : term.lora) {
      if (empty(part)) continue;
      parts.push_back({&term, &part});
      du += parts.back().rows() * part.rank;
      parts.back().kept = kept_of(part, term.w.in);
      if (draws(part)) bits += parts.back().rows() * parts.back().kept.ld;
    }
  float* du_at = scratch(Scratch::low_rank, du);
  auto* bits_at = reinterpret_cast<uint8_t*>(scratch(Scratch::kept, bits / 4));
  for (BackwardPart& p : parts) {
    p.du = du_at;
    du_at += p.rows() * p.part->rank;
    if (!draws(*p.part)) continue;
    p.kept.bits = bits_at;
    bits_at += p.rows() * p.kept.ld;
  }
  return parts;
}

// du = scale * dy b, and the bits of dropout, where forward has left none
ThinProduct product_of_du(const LinearBackward& a, const BackwardPart& p) {
  const LoraPart& part = *p.part;
  const int64_t out = p.term->w.out;
  return {.thin = f32(part.b),
          .wide = f32(p.term->dy) + part.lo * out,
          .y = p.du,
          .thin_by_k = true,
          .y_by_n = true,
          .m = part.rank,
          .n = p.rows(),
          .k = out,
          .alpha = static_cast<float>(part.scale),
          .draw = draws(part) ? draw_of(part, a.keys) : Draw{},
          .draw_cols = p.term->w.in,
          .kept = p.kept};
}

// du = scale * dy b
GemmArgs shared_product_of_du(const LinearBackward& a, const BackwardPart& p) {
  const int64_t out = p.term->w.out, rank = p.part->rank;
  return {.layout = Layout::nn,
          .x = f32(p.term->dy),
          .dense = f32(p.part->b),
          .y = p.du,
          .ldx = out,
          .ldw = rank,
          .ldy = rank,
          .m = a.rows,
          .n = rank,
          .k = out,
          .alpha = static_cast<float>(p.part->scale)};
}

// What both gradients have in common: sums over the rows of the part, sequence by sequence.
ThinProduct gradient(const LinearBackward& a, const BackwardPart& p) {
  return {.thin_by_k = true,
          .wide_by_k = true,
          .m = p.part->rank,
          .k = p.rows(),
          .add = true,
          .sequences = a.sequences.data(),
          .sequence_count = static_cast<int64_t>(a.sequences.size()) - 1,
          .first_row = p.part->lo};
}

// grad_b += scale * dyᵀ u
ThinProduct product_of_grad_b(const LinearBackward& a, const BackwardPart& p) {
  ThinProduct g = gradient(a, p);
  g.thin = f32(p.part->u);
  g.wide = f32(p.term->dy) + p.part->lo * p.term->w.out;
  g.y = f32(p.part->grad_b);
  g.y_by_n = true;
  g.n = p.term->w.out;
  g.alpha = static_cast<float>(p.part->scale);
  return g;
}

// grad_a += f * duᵀ keep(x)
ThinProduct product_of_grad_a(const LinearBackward& a, const BackwardPart& p) {
  ThinProduct g = gradient(a, p);
  g.thin = p.du;
  g.wide = plain_x(a, p.part->lo * p.term->w.in);
  g.wide_bf16 = stored_x(a, p.part->lo * p.term->w.in);
  g.y = f32(p.part->grad_a);
  g.n = p.term->w.in;
  g.alpha = p.kept.factor;
  g.kept = p.kept;
  g.drops = p.kept.bits != nullptr;
  return g;
}

}  // namespace

Codes codes_of(const WeightView& w) {
  return {.data = static_cast<const uint8_t*>(w.data),
          .bits = bits_of(w.format),
          .levels = levels_of(w.format),
          .absmax = w.absmax,
          .rows = w.out,
          .cols = w.in,
          .block = w.block,
          .nested = &w};
}

GemmArgs product_with(Layout layout, const float* x, const WeightView& w, Codes& codes, float* y,
                      int64_t rows, bool add) {
  const bool forward = layout == Layout::nt;
  GemmArgs g{.layout = layout, .x = x, .y = y, .ldw = w.in, .m = rows, .add = add};
  g.n = g.ldy = forward ? w.out : w.in;
  g.k = g.ldx = forward ? w.in : w.out;
  if (w.format != Format::dense) {
    codes = codes_of(w);
    g.codes = &codes;
  } else if (w.type == DType::bf16) {
    g.dense_bf16 = static_cast<const uint16_t*>(w.data);
  } else {
    g.dense = f32(w.data);
  }
  return g;
}

bool fuses(const Linear& a) {
  constexpr int64_t kFewRows = 8;
  return a.numerics == Numerics::exact && a.rows > kFewRows;
}

void linear(const Kernels& kernels, const Linear& a) {
  std::vector<ThinProduct> products;
  bool packed = false;
  for (const LinearTerm& term : a.terms)
    for (const LoraPart& part : term.lora) {
      if (empty(part)) continue;
      if (!shares_rows(a.operands, a.rows, part)) {
        products.push_back(product_of_u(a, term, part));
        continue;
      }
      GemmArgs g = shared_product_of_u(a, term, part);
      g.same_x = std::exchange(packed, true);
      product(kernels, a.operands)(g);
    }
  run(kernels, a.operands, products);
  std::vector<Delta> deltas;
  const LinearTerm* few = nullptr;  // the term before, if its product was one of few rows
  for (const LinearTerm& term : a.terms) {
    if (term.y == nullptr) continue;
    deltas.clear();
    for (const LoraPart& part : term.lora)
      if (!empty(part))
        deltas.push_back({.lo = part.lo,
                          .hi = part.hi,
                          .rank = part.rank,
                          .u = f32(part.u),
                          .w = f32(part.b),
                          .scale = static_cast<float>(part.scale)});
    Codes codes;
    GemmArgs g = product_with(Layout::nt, plain_x(a), term.w, codes, f32(term.y), a.rows, false);
    g.x_bf16 = stored_x(a);
    g.deltas = deltas.data();
    g.delta_count = static_cast<int64_t>(deltas.size());
    // A product of few rows without adapters may go without packing, or pack in another way.
    const bool many = g.delta_count > 0 || g.m > kFewRowsMost;
    g.x_once = !packed && a.terms.size() == 1;
    g.same_x = many ? packed : few != nullptr && pack_alike(a.operands, few->w, term.w);
    packed = many;
    few = many ? nullptr : &term;
    product(kernels, a.operands)(g);
  }
}

namespace {

// Of one term: du of the adapters that share its rows, and dx (+)= dy W + du a, where dx is wanted.
void product_of_dx(const Kernels& kernels, const LinearBackward& a, const std::vector<BackwardPart>& parts,
                   const LinearBackwardTerm& term, float* dx) {
  std::vector<Delta> deltas;
  bool packed = false;
  for (const BackwardPart& p : parts) {
    if (p.term != &term) continue;
    if (shares_rows(a.operands, a.rows, *p.part)) {
      GemmArgs g = shared_product_of_du(a, p);
      g.same_x = std::exchange(packed, true);
      product(kernels, a.operands)(g);
    }
    deltas.push_back({.lo = p.part->lo,
                      .hi = p.part->hi,
                      .rank = p.part->rank,
                      .u = p.du,
                      .w = f32(p.part->a),
                      .kept = p.kept});
  }
  if (dx == nullptr) return;
  Codes codes;
  GemmArgs g = product_with(Layout::nn, f32(term.dy), term.w, codes, dx, a.rows, &term != a.terms.data());
  g.deltas = deltas.data();
  g.delta_count = static_cast<int64_t>(deltas.size());
  g.same_x = packed;
  g.x_once = !packed;
  product(kernels, a.operands)(g);
}

}  // namespace

void linear_backward(const Kernels& kernels, const LinearBackward& a, float* dx) {
  const std::vector<BackwardPart> parts = parts_of(a);
  std::vector<ThinProduct> products;
  for (const BackwardPart& p : parts)
    if (!shares_rows(a.operands, a.rows, *p.part)) products.push_back(product_of_du(a, p));
  run(kernels, a.operands, products);
  for (const LinearBackwardTerm& term : a.terms) product_of_dx(kernels, a, parts, term, dx);
  products.clear();
  for (const BackwardPart& p : parts) {
    if (a.sequences.size() < 2) break;
    if (p.part->grad_b != nullptr) products.push_back(product_of_grad_b(a, p));
    if (p.part->grad_a != nullptr) products.push_back(product_of_grad_a(a, p));
  }
  run(kernels, a.operands, products);
}

}  // namespace qlora::cpu
