// Cases of attention, forward and backward.

#include <cmath>
#include <string>

#include "kernels/cases/cases.h"

namespace qlora::test {
namespace {

struct Shape {
  std::string name;
  int64_t heads, kv_heads, head_dim, window;
  std::vector<SequenceSpan> spans;
  bool lse = true;
  double scale = 0.25;
  double softcap = 0;
  bool bias = false;
  int64_t shared = 0;  // tiles of keys that lie elsewhere: the first rows of k and v. Then forward only
  bool kept = false;   // k and v as a cache keeps them, as bf16 where the backend reads that. Likewise
};

DType kv_type(const Shape& s, const Device& d) {
  const bool narrow = s.kept && d.type() == DType::f32 && d.backend().stores_operands();
  return narrow ? DType::bf16 : d.type();
}

int64_t query_rows(const Shape& s) {
  int64_t rows = 0;
  for (const SequenceSpan& span : s.spans) rows = std::max(rows, span.q_row + span.q_len);
  return rows;
}
int64_t key_rows(const Shape& s) {
  int64_t rows = 0;
  for (const SequenceSpan& span : s.spans)
    rows = std::max(rows, span.k_row + span.k_len - span.shared_tiles * kKeyTile);
  return rows;
}
// Of k and of v: shared tiles, then the sequences' own rows.
int64_t key_values(const Shape& s) {
  return (s.shared * kKeyTile + key_rows(s)) * s.kv_heads * s.head_dim;
}
int64_t longest(const Shape& s) {
  int64_t keys = 1;
  for (const SequenceSpan& span : s.spans) keys = std::max(keys, span.k_len);
  return keys + s.head_dim;
}

// The bias of a few more distances than occur.
int64_t distances(const Shape& s) {
  return s.bias ? longest(s) - s.head_dim + 3 : 0;
}

// The sequences, reading shared tiles that lie each in a block of its own.
struct Keys {
  std::vector<SharedTile> tiles;
  std::vector<SequenceSpan> spans;
  const void *k, *v;

  Keys(const Shape& s, Device& d, const Array& all_k, const Array& all_v) : spans(s.spans) {
    const int64_t tile = kKeyTile * s.kv_heads * s.head_dim;
    const auto part = [&](const Array& all, int64_t from, int64_t n) {
      const Array values(all.begin() + from, all.begin() + from + n);
      return kv_type(s, d) == DType::bf16 ? d.put_bf16(values) : d.put(values);
    };
    for (int64_t t = 0; t < s.shared; ++t)
      tiles.push_back({part(all_k, t * tile, tile), part(all_v, t * tile, tile)});
    for (SequenceSpan& span : spans) span.shared = span.shared_tiles > 0 ? tiles.data() : nullptr;
    const int64_t own = s.shared * tile;
    k = part(all_k, own, std::ssize(all_k) - own);
    v = part(all_v, own, std::ssize(all_v) - own);
  }
};

// `in`: q, k, v and more; the bias last, where there is one.
Attention arguments(const Shape& s, Device& d, const Keys& keys, const std::vector<Array>& in) {
  return {.q = d.put(in[0]),
          .k = keys.k,
          .v = keys.v,
          .sequences = keys.spans,
          .heads = s.heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .scale = s.scale,
          .window = s.window,
          .type = d.type(),
          .operands = d.operands(),
          .softcap = s.softcap,
          .bias = s.bias ? d.put(in.back()) : nullptr,
          .distances = distances(s),
          .kv_type = kv_type(s, d)};
}

// What one flip of a rounding to bf16 is worth, of a weight or a score's gradient of at most `value`.
double flip(double value, double against) {
  return 0x1p-8 * value * against;
}
constexpr double kLargest = 5;  // of operands

// Results start from zeros: rows that belong to no sequence stay as they were.
void* zeros(Device& d, int64_t n) {
  return d.put(Array(static_cast<size_t>(n)));
}

Case forward_case(const Shape& s) {
  int64_t q = query_rows(s) * s.heads * s.head_dim, kv = key_values(s);
  Case c{.kernel = "attention", .shape = s.name, .length = longest(s)};
  c.inputs = {normals(1, q), normals(2, kv), normals(3, kv)};
  if (s.bias) c.inputs.push_back(normals(5, s.heads * distances(s)));
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    const Keys keys(s, d, in[1], in[2]);
    Attention a = arguments(s, d, keys, in);
    a.o = zeros(d, q);
    int64_t rows = query_rows(s) * s.heads;
    if (s.lse) a.lse = zeros(d, rows);
    d.backend().attention(a);
    if (!s.lse) return {d.get(a.o, q)};
    return {d.get(a.o, q), d.get(a.lse, rows)};
  };
  // The largest score and its logarithm's sum may cancel in lse.
  c.cancels = {0, s.bias ? 8.0 : 4.0};
  if (!s.lse) c.cancels = {0};
  c.flips = {flip(1, kLargest), 0};
  if (!s.lse) c.flips = {flip(1, kLargest)};
  return c;
}

Case backward_case(const Shape& s) {
  int64_t q = query_rows(s) * s.heads * s.head_dim, kv = key_values(s);
  Case forward = forward_case(s);
  Case c{.kernel = "attention_backward", .shape = s.name, .length = longest(s)};
  // o and lse are operands, rounded as they would be stored.
  auto reference = make_backend("reference");
  std::vector<Array> saved = evaluate(forward, *reference, DType::f64);
  for (Array& values : saved) {
    for (double& v : values) v = static_cast<double>(static_cast<float>(v));
  }
  c.inputs = {forward.inputs[0], forward.inputs[1], forward.inputs[2], saved[0], saved[1], normals(4, q)};
  if (s.bias) c.inputs.push_back(forward.inputs[3]);
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    const Keys keys(s, d, in[1], in[2]);
    Attention a = arguments(s, d, keys, in);
    a.o = d.put(in[3]);
    a.lse = d.put(in[4]);
    void *dq = zeros(d, q), *dk = zeros(d, kv), *dv = zeros(d, kv);
    d.backend().attention_backward({.forward = a, .dout = d.put(in[5]), .dq = dq, .dk = dk, .dv = dv});
    return {d.get(dq, q), d.get(dk, kv), d.get(dv, kv)};
  };
  // A gradient of a score is at most the scale times two products of dout and v.
  const double ds = 4 * s.scale * std::sqrt(static_cast<double>(s.head_dim));
  c.flips = {flip(ds, kLargest), flip(ds, kLargest), flip(1, kLargest)};
  if (s.softcap > 0) c.cancels = {ds, ds, 0};  // 1 - tanh²
  return c;
}

// Sequences of these lengths, one after another, each reading its own keys.
std::vector<SequenceSpan> packed(std::vector<int64_t> lengths) {
  std::vector<SequenceSpan> spans;
  int64_t row = 0;
  for (int64_t n : lengths) {
    spans.push_back({row, n, row, n});
    row += n;
  }
  return spans;
}

}  // namespace

std::vector<Case> attention_cases() {
  // With a cache: each sequence's keys fill part of a range of 80 rows.
  const std::vector<SequenceSpan> cached = {{0, 1, 0, 70}, {1, 3, 80, 20}, {4, 1, 160, 1}, {5, 9, 240, 75}};
  // Two sequences share a tile; a third has keys of its own alone. Of so many keys every weight may fall to
  // the other side of its rounding, as weights are taken against the largest score so far: most queries have
  // few.
  const std::vector<SequenceSpan> prefixed = {
      {0, 1, 0, 256, nullptr, 1}, {1, 3, 0, 271, nullptr, 1}, {4, 12, 18, 14}};
  const Shape shapes[] = {
      {"one token", 1, 1, 16, 0, packed({1})},
      {"no sequence", 2, 1, 16, 0, {}},
      {"one-token and empty sequences, two heads share keys", 4, 2, 16, 0, packed({1, 0, 1, 5, 0, 1})},
      {"ragged, heads of 64, three share keys", 9, 3, 64, 0, packed({37, 1, 64, 5})},
      {"ragged, heads of 80", 2, 2, 80, 0, packed({17, 33}), true, 0.111},
      {"longer than a chunk", 2, 1, 16, 0, packed({131, 66})},
      {"window of 1", 2, 2, 16, 1, packed({9, 3})},
      {"window of 7", 3, 1, 16, 7, packed({40, 6, 1})},
      {"window of 70 over chunks", 2, 2, 32, 70, packed({150})},
      {"window wider than the sequences", 2, 1, 24, 512, packed({12, 20})},
      {"keys from a cache", 4, 2, 32, 0, cached},
      {"keys from a cache, window of 16", 2, 1, 64, 16, cached},
      {"without lse", 3, 3, 16, 0, packed({10, 4}), false},
      {"softcap, ragged, heads of 64", 3, 1, 64, 0, packed({37, 5}), true, 0.125, 2},
      {"bias, window of 7", 4, 2, 16, 7, packed({40, 6}), true, 0.25, 0, true},
      {"softcap and bias, keys from a cache", 4, 2, 32, 0, cached, true, 0.25, 2, true},
      {"a shared tile of keys", 2, 1, 16, 0, prefixed, true, 0.25, 0, false, 1},
  };
  // What backends with tensor cores cut into tiles; with bf16 operands alone.
  const Shape tiled[] = {
      {"two blocks of queries, heads of 64", 1, 1, 64, 0, packed({140}), true, 0.125},
      {"heads of 64, window of 70", 2, 1, 64, 70, packed({95}), true, 0.125},
      {"ragged, heads of 96, window of 40", 2, 1, 96, 40, packed({70, 3}), true, 0.102},
      {"heads of 128", 1, 1, 128, 0, packed({66}), true, 0.088},
      {"keys from a cache, heads of 256", 2, 1, 256, 0, {{0, 3, 0, 40}, {3, 1, 50, 1}}, true, 0.0625},
      {"softcap, heads of 64, window of 70", 1, 1, 64, 70, packed({95}), true, 0.125, 2},
      {"softcap and bias, heads of 80", 2, 1, 80, 0, packed({33, 3}), true, 0.111, 2, true},
      {"bias, heads of 96", 1, 1, 96, 0, packed({70}), true, 0.102, 0, true},
      {"softcap and bias, heads of 128, window of 30", 2, 2, 128, 30, packed({50}), true, 0.088, 2, true},
      {"softcap, heads of 256", 1, 1, 256, 0, packed({40, 2}), true, 0.0625, 2},
      {"a shared tile of keys, heads of 64", 3, 1, 64, 0, prefixed, true, 0.125, 0, false, 1},
      {"a shared tile of keys, heads of 128, window of 20", 1, 1, 128, 20, prefixed, true, 0.088, 0, false,
       1},
      {"keys kept from a cache, heads of 64", 4, 2, 64, 0, cached, true, 0.125, 0, false, 0, true},
      {"keys kept from a cache, softcap and bias, window of 16", 2, 2, 40, 16, cached, true, 0.25, 2, true, 0,
       true},
      {"a shared tile of keys, kept, heads of 64", 3, 1, 64, 0, prefixed, true, 0.125, 0, false, 1, true},
  };
  auto cases_of = [](std::span<const Shape> some) {
    std::vector<Case> all;
    for (const Shape& s : some) {
      all.push_back(forward_case(s));
      if (s.lse && s.shared == 0 && !s.kept) all.push_back(backward_case(s));
    }
    return with_bf16_operands(std::move(all));
  };
  std::vector<Case> all = cases_of(shapes);
  for (Case& c : cases_of(tiled))
    if (is_bf16(c.operands)) all.push_back(std::move(c));
  return all;
}

}  // namespace qlora::test
