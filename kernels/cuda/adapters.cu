// Gradients of an adapter add one product per sequence, in order, so that cutting a batch into micro-batches
// changes no bit.

#include "kernels/cuda/adapters.h"

#include <algorithm>

#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/groups.h"
#include "kernels/cuda/many_rows.h"

namespace qlora::cuda {
namespace {

const float* floats(const void* p, int64_t element = 0) {
  return static_cast<const float*>(p) + element;
}
float* floats(void* p, int64_t element = 0) {
  return static_cast<float*>(p) + element;
}

const RowKey* keys_of(const RowKey* keys, const LoraPart& part) {
  return keys == nullptr ? nullptr : keys + part.lo;
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

}  // namespace

void multiply_down(Device& d, const Linear& a, const RowKey* keys, const ForwardParts& parts) {
  std::vector<SmallProduct> products;
  for (const auto& [term, part, du] : parts)
    products.push_back({.x = floats(a.x, part->lo * term->w.in),
                        .w = floats(part->a),
                        .y = floats(part->u),
                        .m = part->hi - part->lo,
                        .n = part->rank,
                        .ranges = {{0, term->w.in}},
                        .alpha = factor_of(part->dropout),
                        .dropout = part->dropout,
                        .keys = keys_of(keys, *part)});
  small_products(d, Layout::nt, Drops::x, a.operands, products);
}

void multiply_up(Device& d, const Linear& a, const ForwardParts& parts) {
  std::vector<SmallProduct> products;
  for (const auto& [term, part, du] : parts) {
    if (term->y == nullptr) continue;
    products.push_back({.x = floats(part->u),
                        .w = floats(part->b),
                        .y = floats(term->y, part->lo * term->w.out),
                        .m = part->hi - part->lo,
                        .n = term->w.out,
                        .ranges = {{0, part->rank}},
                        .alpha = static_cast<float>(part->scale),
                        .sums = exact_scale(*part) ? Sums::go_on : Sums::are_added});
  }
  small_products(d, Layout::nt, Drops::nothing, a.operands, products);
}

void place_low_rank(Device& d, BackwardParts& parts) {
  const auto elements = [](const LoraPart& part) { return (part.hi - part.lo) * part.rank; };
  int64_t total = 0;
  for (const auto& p : parts) total += elements(*p.part);
  auto* room = d.room<float>(Room::low_rank, static_cast<size_t>(total));
  for (auto& p : parts) {
    p.du = room;
    room += elements(*p.part);
  }
}

void low_rank_gradients(Device& d, const LinearBackward& a, const BackwardParts& parts) {
  std::vector<SmallProduct> products;
  for (const auto& [term, part, du] : parts)
    products.push_back({.x = floats(term->dy, part->lo * term->w.out),
                        .w = floats(part->b),
                        .y = du,
                        .m = part->hi - part->lo,
                        .n = part->rank,
                        .ranges = {{0, term->w.out}},
                        .alpha = static_cast<float>(part->scale)});
  small_products(d, Layout::nn, Drops::nothing, a.operands, products);
}

void adapter_gradients(Device& d, const LinearBackward& a, const RowKey* keys, const BackwardParts& parts) {
  std::vector<SmallProduct> products;
  for (const auto& [term, part, du] : parts) {
    const auto ranges = sequences_of(a, *part);
    if (part->grad_b != nullptr)
      products.push_back({.x = floats(term->dy, part->lo * term->w.out),
                          .w = floats(part->u),
                          .y = floats(part->grad_b),
                          .m = term->w.out,
                          .n = part->rank,
                          .ranges = ranges,
                          .alpha = static_cast<float>(part->scale),
                          .sums = Sums::are_added});
    if (part->grad_a != nullptr)
      products.push_back({.x = du,
                          .w = floats(a.x, part->lo * term->w.in),
                          .y = floats(part->grad_a),
                          .m = part->rank,
                          .n = term->w.in,
                          .ranges = ranges,
                          .alpha = factor_of(part->dropout),
                          .sums = Sums::are_added,
                          .dropout = part->dropout,
                          .keys = keys_of(keys, *part)});
  }
  small_products(d, Layout::tn, Drops::w, a.operands, products);
}

void share_gradient(Device& d, const LinearBackward& a, const RowKey* keys, const BackwardParts& parts,
                    float* dx) {
  for (const LinearBackwardTerm& of : a.terms) {
    std::vector<SmallProduct> products;
    for (const auto& [term, part, du] : parts) {
      if (term != &of) continue;
      products.push_back({.x = du,
                          .w = floats(part->a),
                          .y = dx + part->lo * of.w.in,
                          .m = part->hi - part->lo,
                          .n = of.w.in,
                          .ranges = {{0, part->rank}},
                          .alpha = factor_of(part->dropout),
                          .sums = part->dropout.p > 0 ? Sums::are_added : Sums::go_on,
                          .dropout = part->dropout,
                          .keys = keys_of(keys, *part)});
    }
    small_products(d, Layout::nn, Drops::y, a.operands, products);
  }
}

}  // namespace qlora::cuda
