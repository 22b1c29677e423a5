#include <array>
#include <utility>

#include "core/base/philox.h"
#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

constexpr size_t kMaxShared = 3;  // q, k, v

// One weight of a call, with the adapters' parts on it and the memory that they share with backward.
struct Term {
  const FrozenLinear* weight;
  std::vector<LoraPart> parts;
  std::vector<Tensor> kept;  // their u, what their dropout keeps, and the parameters
};

// All that backward reads.
struct Saved {
  std::vector<Term> terms;
  // x, or how to make it again; neither when no part reads it.
  Tensor x;
  std::shared_ptr<const std::function<Tensor()>> again;
  const Axis* axis;
  DType type;
};

Exec exec_of(Backend& backend, Memory& memory, const Axis& axis, DType type) {
  return {backend, memory, type, axis.keys.data(), axis.cu};
}

// Dropout acts in training only; its stream belongs to the run and to the linear's name.
Dropout dropout_of(const Context& c, const FrozenLinear& w, const AdapterSpan& span, const Lora& lora) {
  if (!c.training || lora.dropout <= 0) return {};
  return {lora.dropout, mix_seed(span.seed, stream_of(w.name().data(), w.name().size())), span.step};
}

// Whether backward finds what dropout keeps instead of drawing it again.
bool keeps_dropout(const Context& c, const Lora& lora) {
  return c.training && c.tape != nullptr && lora.dropout > 0 && c.type == DType::f32 &&
         c.backend.keeps_dropout();
}

// The memory of some parts that lies in two tensors, as far as it is given away.
struct Places {
  std::byte* u;
  uint8_t* kept;
};

LoraPart make_part(const Context& c, const FrozenLinear& w, const AdapterSpan& span, const Lora& lora,
                   Places& places, Term& term) {
  const Tensor &a = lora.a.value, &b = lora.b.value;
  check_operand(c, "linear", lora.a.name.c_str(), a, lora.rank(), w.in());
  check_operand(c, "linear", lora.b.name.c_str(), b, w.out(), lora.rank());
  QLORA_CHECK(c.tape == nullptr || (lora.a.grad && lora.b.grad), failure,
              "linear: {} has no room for its gradient", lora.a.name);
  for (const Tensor* kept : {&a, &b, &lora.a.grad, &lora.b.grad}) term.kept.push_back(*kept);
  const int64_t rows = span.hi - span.lo;
  void* const u = places.u;
  places.u += static_cast<size_t>(rows * lora.rank()) * size_of(c.type);
  uint8_t* kept = nullptr;
  if (keeps_dropout(c, lora)) {
    kept = places.kept;
    places.kept += rows * kept_bytes(w.in());
  }
  return {.lo = span.lo,
          .hi = span.hi,
          .a = a.data(),
          .b = b.data(),
          .rank = lora.rank(),
          .scale = lora.scale,
          .dropout = dropout_of(c, w, span, lora),
          .u = u,
          .kept = kept,
          .grad_a = lora.a.grad.data(),
          .grad_b = lora.b.grad.data()};
}

// The u of all parts is one tensor, and what they keep another: with many runs, a tensor of each costs more
// than its product.
Term make_term(const Context& c, const FrozenLinear& w) {
  Term term{&w, {}, {}};
  std::vector<std::pair<const AdapterSpan*, const Lora*>> found;
  int64_t elements = 0, bits = 0;
  for (const AdapterSpan& span : c.axis->spans) {
    const Lora* lora = span.adapter == nullptr || span.lo == span.hi ? nullptr : span.adapter->find(w.name());
    if (lora == nullptr) continue;
    found.emplace_back(&span, lora);
    elements += (span.hi - span.lo) * lora->rank();
    if (keeps_dropout(c, *lora)) bits += (span.hi - span.lo) * kept_bytes(w.in());
  }
  if (found.empty()) return term;
  term.parts.reserve(found.size());
  term.kept.reserve(4 * found.size() + 2);
  Places places{term.kept.emplace_back(c.memory, Shape{elements}, c.type).as<std::byte>(), nullptr};
  if (bits > 0) places.kept = term.kept.emplace_back(c.memory, Shape{bits}, DType::u8).as<uint8_t>();
  for (const auto& [span, lora] : found) term.parts.push_back(make_part(c, w, *span, *lora, places, term));
  return term;
}

// Whether one call of the kernel takes all of them.
bool go_together(std::span<const Term> terms) {
  for (const Term& t : terms) {
    if (t.weight->plain() == nullptr) return false;
    if (t.weight->plain()->parts().operands != terms[0].weight->plain()->parts().operands) return false;
  }
  return true;
}

Operands operands_of(std::span<const Term> terms) {
  return terms[0].weight->plain()->parts().operands;
}

// x as the weight takes it by itself: wrappers are given elements of the compute type.
Tensor taken_by(const FrozenLinear& w, const Exec& e, const Tensor& x) {
  if (!x || x.type() == e.type || w.plain() != nullptr) return x;
  Tensor wide(e.memory, x.shape(), e.type);
  e.backend.dequantize({.w = {.out = x.rows(), .in = x.cols(), .data = x.data(), .type = x.type()},
                        .dst = wide.data(),
                        .type = e.type});
  return wide;
}

// `ys` may be empty tensors: nobody reads those outputs.
void run_forward(const Exec& e, std::span<const Term> terms, const Tensor& x, std::span<const Tensor> ys) {
  if (!go_together(terms)) {
    for (size_t i = 0; i < terms.size(); ++i)
      terms[i].weight->forward(e, taken_by(*terms[i].weight, e, x), terms[i].parts, ys[i]);
    return;
  }
  std::array<LinearTerm, kMaxShared> args;
  for (size_t i = 0; i < terms.size(); ++i) {
    const FrozenWeight& w = *terms[i].weight->plain();
    args[i] = {.w = w.view(), .bias = w.bias().data(), .lora = terms[i].parts, .y = ys[i].data()};
  }
  e.backend.linear({.x = x.data(),
                    .rows = x.rows(),
                    .terms = std::span(args).first(terms.size()),
                    .keys = e.keys,
                    .type = e.type,
                    .operands = operands_of(terms),
                    .numerics = e.numerics,
                    .x_type = x.type()});
}

// `dys` may be empty tensors: those terms have no share.
void run_backward(const Exec& e, const Saved& s, std::span<const Tensor> dys, Dest dx) {
  const Tensor x = s.again ? (*s.again)() : s.x;
  if (!go_together(s.terms)) {
    for (size_t i = 0; i < s.terms.size(); ++i) {
      if (!dys[i]) continue;
      const FrozenLinear& w = *s.terms[i].weight;
      w.backward(e, taken_by(w, e, x), dys[i], s.terms[i].parts, dx.grad, dx.mode);
      dx.mode = Write::accumulate;
    }
    return;
  }
  std::array<LinearBackwardTerm, kMaxShared> args;
  size_t n = 0;
  int64_t rows = 0;
  for (size_t i = 0; i < s.terms.size(); ++i) {
    if (!dys[i]) continue;
    args[n++] = {.w = s.terms[i].weight->plain()->view(), .lora = s.terms[i].parts, .dy = dys[i].data()};
    rows = dys[i].rows();
  }
  e.backend.linear_backward({.x = x.data(),
                             .rows = rows,
                             .terms = std::span(args).first(n),
                             .keys = e.keys,
                             .sequences = e.sequences,
                             .dx = dx.grad.data(),
                             .mode = dx.mode,
                             .type = e.type,
                             .operands = operands_of(s.terms),
                             .x_type = x ? x.type() : e.type});
}

void check(const Context& c, std::span<const FrozenLinear* const> weights, const Var& x) {
  axis_of(c, "linear");
  QLORA_CHECK(c.tape == nullptr || c.numerics == Numerics::exact, failure,
              "linear: products of the decode class have no gradient");
  QLORA_CHECK(!weights.empty() && weights.size() <= kMaxShared, failure,
              "linear: one to three weights, given {}", weights.size());
  for (const FrozenLinear* w : weights) {
    check_kept(c, "linear", ("x of " + w->name()).c_str(), x.value, c.axis->rows(), w->in());
    QLORA_CHECK(x.value.type() == c.type || w->plain() == nullptr || is_bf16(w->plain()->parts().operands),
                failure, "linear: x of {} holds {} elements, which its products do not read", w->name(),
                name_of(x.value.type()));
  }
}

}  // namespace

std::vector<Var> linear(Context& c, std::span<const FrozenLinear* const> weights, const Var& x) {
  check(c, weights, x);
  Saved saved{{}, {}, nullptr, c.axis, c.type};
  bool adapted = false;
  for (const FrozenLinear* w : weights) {
    saved.terms.push_back(make_term(c, *w));
    adapted = adapted || !saved.terms.back().parts.empty();
  }
  const bool record = c.tape != nullptr && (adapted || x.needs_grad());
  const bool unread = c.unread && record;
  std::vector<Shape> shapes;
  std::vector<Tensor> ys;
  for (const FrozenLinear* w : weights) {
    shapes.push_back({x.value.rows(), w->out()});
    ys.push_back(unread ? Tensor() : Tensor(c.memory, shapes.back(), c.type));
  }
  Exec exec = exec_of(c.backend, c.memory, *c.axis, c.type);
  exec.numerics = c.numerics;
  if (!unread || adapted) run_forward(exec, saved.terms, x.value, ys);

  if (!record) {
    std::vector<Var> constants;
    for (Tensor& y : ys) constants.push_back({std::move(y)});
    return constants;
  }
  if (adapted && x.again != nullptr)
    saved.again = x.again;
  else if (adapted)
    saved.x = x.value;
  auto backward = [saved = std::move(saved), slot = x.slot, &backend = c.backend, &memory = c.memory](
                      Tape& tape, std::span<const Tensor> dys) {
    Dest dx = slot >= 0 ? tape.dest(slot) : Dest{};
    run_backward(exec_of(backend, memory, *saved.axis, saved.type), saved, dys, dx);
  };
  if (unread) return c.tape->record_unread(c.memory, std::move(shapes), c.type, std::move(backward));
  return c.tape->record(std::move(ys), std::move(backward));
}

Var linear(Context& c, const FrozenLinear& weight, const Var& x) {
  const FrozenLinear* one = &weight;
  return std::move(linear(c, std::span(&one, 1), x).front());
}

}  // namespace qlora
