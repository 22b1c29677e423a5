// The linear layer with its adapters. y is f32, so an adapter's delta is added before any rounding to bf16 by
// a reader. All adapters of all terms go through each step together, in one launch: packing runs costs no
// launches. Gradients of an adapter add one product per sequence, in order, so that cutting a batch into
// micro-batches changes no bit.

#include <algorithm>

#include "kernels/cuda/groups.h"
#include "kernels/cuda/kernels.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    add_bias(const float* bias, float* y, int64_t rows, int64_t cols) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < rows * cols) y[i] += bias[i % cols];
}

const float* floats(const void* p, int64_t element = 0) {
  return static_cast<const float*>(p) + element;
}
float* floats(void* p, int64_t element = 0) {
  return static_cast<float*>(p) + element;
}

// Calls body(term, part) for every part that has rows and a rank.
template <class Terms, class Body>
void for_parts(const Terms& terms, Body&& body) {
  for (const auto& term : terms)
    for (const LoraPart& part : term.lora)
      if (part.hi > part.lo && part.rank > 0) body(term, part);
}

// The keys on the device, where a part drops anything.
template <class Terms>
const RowKey* upload_keys(Device& d, const Terms& terms, const RowKey* keys, int64_t rows) {
  bool drops = false;
  for_parts(terms, [&](const auto&, const LoraPart& part) { drops = drops || part.dropout.p > 0; });
  return drops ? d.uploads.put(d.stream, keys, static_cast<size_t>(rows)) : nullptr;
}

const RowKey* keys_of(const RowKey* keys, const LoraPart& part) {
  return keys == nullptr ? nullptr : keys + part.lo;
}

// u = drop(x) aᵀ;  y += scale u bᵀ
void adapters_forward(Device& d, const Linear& a, const RowKey* keys) {
  std::vector<SmallProduct> down, up;
  for_parts(a.terms, [&](const LinearTerm& term, const LoraPart& part) {
    const int64_t in = term.w.in, out = term.w.out, rows = part.hi - part.lo;
    down.push_back({.x = floats(a.x, part.lo * in),
                    .w = floats(part.a),
                    .y = floats(part.u),
                    .m = rows,
                    .n = part.rank,
                    .ranges = {{0, in}},
                    .dropout = part.dropout,
                    .keys = keys_of(keys, part)});
    if (term.y == nullptr) return;
    up.push_back({.x = floats(part.u),
                  .w = floats(part.b),
                  .y = floats(term.y, part.lo * out),
                  .m = rows,
                  .n = out,
                  .ranges = {{0, part.rank}},
                  .alpha = static_cast<float>(part.scale),
                  .adds = true});
  });
  small_products(d, Layout::nt, Drops::x, a.operands, down);
  small_products(d, Layout::nt, Drops::nothing, a.operands, up);
}

// The part's rows of each sequence, counted from its first.
std::vector<std::pair<int64_t, int64_t>> sequences_of(const LinearBackward& a, const LoraPart& part) {
  std::vector<std::pair<int64_t, int64_t>> all;
  for (size_t s = 0; s + 1 < a.sequences.size(); ++s) {
    const int64_t lo = std::max<int64_t>(a.sequences[s], part.lo),
                  hi = std::min<int64_t>(a.sequences[s + 1], part.hi);
    if (hi > lo) all.emplace_back(lo - part.lo, hi - part.lo);
  }
  return all;
}

// du = scale dy b, those of all parts one after another
std::vector<float*> low_rank_gradients(Device& d, const LinearBackward& a) {
  int64_t total = 0;
  for_parts(a.terms, [&](const auto&, const LoraPart& part) { total += (part.hi - part.lo) * part.rank; });
  auto* room = d.room<float>(Room::low_rank, static_cast<size_t>(total));
  std::vector<float*> du;
  std::vector<SmallProduct> products;
  for_parts(a.terms, [&](const LinearBackwardTerm& term, const LoraPart& part) {
    du.push_back(room);
    room += (part.hi - part.lo) * part.rank;
    products.push_back({.x = floats(term.dy, part.lo * term.w.out),
                        .w = floats(part.b),
                        .y = du.back(),
                        .m = part.hi - part.lo,
                        .n = part.rank,
                        .ranges = {{0, term.w.out}},
                        .alpha = static_cast<float>(part.scale)});
  });
  small_products(d, Layout::nn, Drops::nothing, a.operands, products);
  return du;
}

// grad_b += scale dyᵀ u;  grad_a += duᵀ drop(x), sequence after sequence
void adapter_gradients(Device& d, const LinearBackward& a, const RowKey* keys,
                       const std::vector<float*>& du) {
  std::vector<SmallProduct> products;
  size_t i = 0;
  for_parts(a.terms, [&](const LinearBackwardTerm& term, const LoraPart& part) {
    const float* of_part = du[i++];
    const auto ranges = sequences_of(a, part);
    if (part.grad_b != nullptr)
      products.push_back({.x = floats(term.dy, part.lo * term.w.out),
                          .w = floats(part.u),
                          .y = floats(part.grad_b),
                          .m = term.w.out,
                          .n = part.rank,
                          .ranges = ranges,
                          .alpha = static_cast<float>(part.scale),
                          .adds = true});
    if (part.grad_a != nullptr)
      products.push_back({.x = of_part,
                          .w = floats(a.x, part.lo * term.w.in),
                          .y = floats(part.grad_a),
                          .m = part.rank,
                          .n = term.w.in,
                          .ranges = ranges,
                          .adds = true,
                          .dropout = part.dropout,
                          .keys = keys_of(keys, part)});
  });
  small_products(d, Layout::tn, Drops::w, a.operands, products);
}

}  // namespace

void linear(Device& d, const Linear& a) {
  if (a.rows == 0) return;
  d.uploads.begin();
  for (const LinearTerm& term : a.terms)
    if (term.y != nullptr)
      qgemm(d, {.layout = Layout::nt,
                .x = a.x,
                .w = term.w,
                .y = term.y,
                .rows = a.rows,
                .operands = a.operands,
                .numerics = a.numerics});
  adapters_forward(d, a, upload_keys(d, a.terms, a.keys, a.rows));
  for (const LinearTerm& term : a.terms) {
    if (term.bias == nullptr || term.y == nullptr) continue;
    d.stream.launch(add_bias, dim3(blocks_for(a.rows * term.w.out, kThreads)), dim3(kThreads), 0,
                    floats(term.bias), floats(term.y), a.rows, term.w.out);
  }
}

void linear_backward(Device& d, const LinearBackward& a) {
  if (a.rows == 0 || a.terms.empty()) return;
  d.uploads.begin();
  const RowKey* keys = upload_keys(d, a.terms, a.keys, a.rows);
  const std::vector<float*> du = low_rank_gradients(d, a);
  adapter_gradients(d, a, keys, du);
  if (a.dx == nullptr) return;
  const int64_t in = a.terms[0].w.in;
  // A destination that already holds something receives the finished sum once.
  const bool aside = a.mode == Write::accumulate;
  float* dx = aside ? d.room<float>(Room::y, static_cast<size_t>(a.rows * in)) : floats(a.dx);
  Write mode = Write::overwrite;
  size_t i = 0;
  for (const LinearBackwardTerm& term : a.terms) {
    qgemm(d, {.layout = Layout::nn,
              .x = term.dy,
              .w = term.w,
              .y = dx,
              .rows = a.rows,
              .mode = mode,
              .operands = a.operands});
    mode = Write::accumulate;
    // dx += drop'(du a)
    std::vector<SmallProduct> shares;
    for_parts(std::span(&term, 1), [&](const LinearBackwardTerm&, const LoraPart& part) {
      shares.push_back({.x = du[i++],
                        .w = floats(part.a),
                        .y = dx + part.lo * in,
                        .m = part.hi - part.lo,
                        .n = in,
                        .ranges = {{0, part.rank}},
                        .adds = true,
                        .dropout = part.dropout,
                        .keys = keys_of(keys, part)});
    });
    small_products(d, Layout::nn, Drops::y, a.operands, shares);
  }
  if (aside) add(d, {.a = a.dx, .b = dx, .y = a.dx, .n = a.rows * in});
}

}  // namespace qlora::cuda
