#include <utility>

#include "core/ops/kept_rows.h"
#include "core/ops/kv_cache.h"
#include "core/ops/operand.h"
#include "core/ops/ops.h"
#include "core/ops/prefix.h"

namespace qlora {

namespace {

// The sequences of the axis as the kernel wants them; with a cache, keys lie in its rows.
std::vector<SequenceSpan> spans_of(const Axis& axis, const KvCache* cache) {
  std::vector<SequenceSpan> spans;
  for (int64_t s = 0; s < axis.sequences(); ++s) {
    int64_t lo = axis.cu[static_cast<size_t>(s)], n = axis.cu[static_cast<size_t>(s) + 1] - lo;
    if (cache == nullptr) {
      spans.push_back({.q_row = lo, .q_len = n, .k_row = lo, .k_len = n});
    } else {
      spans.push_back({.q_row = lo, .q_len = n, .k_row = cache->first_row(s), .k_len = cache->length(s) + n});
    }
  }
  return spans;
}

// Leaves of each sequence the queries from its first wanted row to its last.
void keep_wanted(std::vector<SequenceSpan>& spans, const WantedRows* wanted) {
  if (wanted == nullptr) return;
  std::vector<SequenceSpan> kept;
  for (size_t s = 0; s < spans.size(); ++s) {
    const auto lo = static_cast<size_t>(wanted->axis.cu[s]), hi = static_cast<size_t>(wanted->axis.cu[s + 1]);
    if (lo == hi) continue;
    SequenceSpan span = spans[s];
    const int64_t before = wanted->ids[lo] - span.q_row,
                  after = span.q_row + span.q_len - 1 - wanted->ids[hi - 1];
    span.q_row += before;
    span.q_len -= before + after;
    span.k_len -= after;
    kept.push_back(span);
  }
  spans = std::move(kept);
}

void check_bias(const AttentionShape& shape, std::span<const SequenceSpan> spans) {
  if (!shape.bias) return;
  for (const SequenceSpan& span : spans)
    QLORA_CHECK(span.k_len <= shape.bias.cols(), failure,
                "attention: the bias knows distances below {}, a sequence has {} keys", shape.bias.cols(),
                span.k_len);
}

Attention make_args(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v,
                    const Tensor& o, const Tensor& lse, std::span<const SequenceSpan> spans) {
  check_bias(shape, spans);
  return {.q = q.data(),
          .k = k.data(),
          .v = v.data(),
          .o = o.data(),
          .lse = lse.data(),
          .sequences = spans,
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .scale = shape.scale,
          .window = shape.window,
          .type = o.type(),
          .operands = shape.operands,
          .softcap = shape.softcap,
          .bias = shape.bias.data(),
          .distances = shape.bias ? shape.bias.cols() : 0,
          .q_type = q.type(),
          .kv_type = k.type()};
}

void check(const Context& c, const Var& q, const Var& k, const Var& v, const AttentionShape& shape) {
  int64_t rows = axis_of(c, "attention").rows();
  QLORA_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0, failure,
              "attention: {} query heads cannot share {} key heads", shape.heads, shape.kv_heads);
  check_kept(c, "attention", "q", q.value, rows, shape.heads * shape.head_dim);
  check_kept(c, "attention", "k", k.value, rows, shape.kv_heads * shape.head_dim);
  check_kept(c, "attention", "v", v.value, rows, shape.kv_heads * shape.head_dim);
  if (shape.bias) check_operand(c, "attention", "the bias", shape.bias, shape.heads, shape.bias.cols());
}

Var attend_cached(Context& c, const Var& q, const Var& k, const Var& v, const AttentionShape& shape,
                  int64_t layer) {
  QLORA_CHECK(c.tape == nullptr, failure, "attention: a cache and a tape exclude each other");
  QLORA_CHECK(c.cache->sequences() == c.axis->sequences(), failure,
              "attention: {} sequences, {} in the cache", c.axis->sequences(), c.cache->sequences());
  const DType has = c.cache->keys(layer).type(), kept = type_of_kept(c.backend, c.type, shape.operands);
  QLORA_CHECK(has == kept, failure, "attention: the cache has {} keys, they are kept as {}", name_of(has),
              name_of(kept));
  std::vector<SequenceSpan> spans = spans_of(*c.axis, c.cache);
  keep_wanted(spans, c.wanted);
  c.cache->append(layer, k.value, v.value, c.axis->cu);
  Tensor o(c.memory, q.value.shape(), c.type);
  c.backend.attention(make_args(shape, q.value, c.cache->keys(layer), c.cache->values(layer), o, {}, spans));
  return {std::move(o)};
}

Var attend_after_prefixes(Context& c, const Var& q, const Var& k, const Var& v, const AttentionShape& shape,
                          int64_t layer) {
  QLORA_CHECK(c.tape == nullptr && c.cache == nullptr, failure,
              "attention: prefixes go neither with a tape nor with a cache");
  PrefixPass::Layer all =
      c.prefixes->join(layer, k.value, v.value, c.axis->cu, type_of_kept(c.backend, c.type, shape.operands));
  keep_wanted(all.spans, c.wanted);
  Tensor o(c.memory, q.value.shape(), c.type);
  c.backend.attention(make_args(shape, q.value, all.keys, all.values, o, {}, all.spans));
  return {std::move(o)};
}

// What is kept of x, which attention alone reads.
Tensor kept(const Context& c, const Tensor& x) {
  if (x.type() == c.kept_type) return x;
  Tensor narrow(c.memory, x.shape(), c.kept_type);
  keep_rows(x, narrow);
  return narrow;
}

// What backward reads.
struct Saved {
  Tensor q, k, v, o, lse;
  int q_slot, k_slot, v_slot;
  AttentionShape shape;
  const Axis* axis;
};

void run_backward(const Saved& s, Tape& tape, const Tensor& dout) {
  std::vector<SequenceSpan> spans = spans_of(*s.axis, nullptr);
  Memory& memory = s.q.memory();
  // The kernel overwrites all three.
  const DType type = s.o.type();
  Tensor dq(memory, s.q.shape(), type), dk(memory, s.k.shape(), type), dv(memory, s.v.shape(), type);
  memory.backend().attention_backward({.forward = make_args(s.shape, s.q, s.k, s.v, s.o, s.lse, spans),
                                       .dout = dout.data(),
                                       .dq = dq.data(),
                                       .dk = dk.data(),
                                       .dv = dv.data()});
  if (s.q_slot >= 0) tape.add(s.q_slot, dq);
  if (s.k_slot >= 0) tape.add(s.k_slot, dk);
  if (s.v_slot >= 0) tape.add(s.v_slot, dv);
}

}  // namespace

Var attention(Context& c, const Var& q, const Var& k, const Var& v, const AttentionShape& shape,
              int64_t layer) {
  check(c, q, k, v, shape);
  if (c.prefixes != nullptr) return attend_after_prefixes(c, q, k, v, shape, layer);
  if (c.cache != nullptr) return attend_cached(c, q, k, v, shape, layer);
  bool record = c.tape != nullptr && (q.needs_grad() || k.needs_grad() || v.needs_grad());
  Tensor o(c.memory, q.value.shape(), c.type), lse;
  if (record) lse = Tensor(c.memory, {q.value.rows(), shape.heads}, c.type);
  std::vector<SequenceSpan> spans = spans_of(*c.axis, nullptr);
  if (c.tape == nullptr) keep_wanted(spans, c.wanted);
  Saved saved{kept(c, q.value), kept(c, k.value), kept(c, v.value), o,     lse,
              q.slot,           k.slot,           v.slot,           shape, c.axis};
  c.backend.attention(make_args(shape, saved.q, saved.k, saved.v, o, lse, spans));
  if (!record) return {std::move(o)};
  return c.tape->record(std::move(o), [saved = std::move(saved)](Tape& tape, std::span<const Tensor> dys) {
    run_backward(saved, tape, dys[0]);
  });
}

}  // namespace qlora
