// Attention on tensor cores (flash.cuh): the laws of bits for every size of head, and shared memory without
// bank conflicts. That results are right is in the case table.

#include <catch2/catch.hpp>

#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/schedules.h"

using namespace qlora;
using namespace qlora::test;
using emulated::test::for_every_schedule;

namespace {

constexpr int64_t kHeads = 2, kKvHeads = 1;

Array rows(const Array& all, int64_t from, int64_t to, int64_t width) {
  return {all.begin() + from * width, all.begin() + to * width};
}

// One sequence; parts of it are computed in several ways.
struct Sequence {
  int64_t length, dim, window;
  bool shaped;  // scores have a softcap and a bias
  Array q = normals(1, length*kHeads*dim), k = normals(2, length*kKvHeads*dim),
        v = normals(3, length*kKvHeads*dim), dout = normals(4, length*kHeads*dim),
        bias = normals(5, kHeads*length);

  Attention arguments(test::Device& d, std::span<const SequenceSpan> spans) const {
    return {.sequences = spans,
            .heads = kHeads,
            .kv_heads = kKvHeads,
            .head_dim = dim,
            .scale = 0.1,
            .window = window,
            .operands = Operands::bf16,
            .softcap = shaped ? 2.0 : 0.0,
            .bias = shaped ? d.put(bias) : nullptr,
            .distances = length};
  }

  // o and lse of queries [lo, length). The first `shared` tiles of keys lie elsewhere, apart from each other
  // and in reverse order; the rest begins in row 3.
  std::vector<Array> forward(Backend& backend, int64_t lo, int64_t shared) const {
    constexpr int64_t kShift = 3;
    test::Device d(backend, DType::f32);
    const int64_t width = kKvHeads * dim, n = length - lo;
    auto own = [&](const Array& all) {
      Array shifted(static_cast<size_t>(kShift * width), 7.0);
      shifted.insert(shifted.end(), all.begin() + shared * kKeyTile * width, all.end());
      return d.put(shifted);
    };
    std::vector<SharedTile> tiles;
    for (int64_t t = shared; t-- > 0;)
      tiles.insert(tiles.begin(), {d.put(rows(k, t * kKeyTile, (t + 1) * kKeyTile, width)),
                                   d.put(rows(v, t * kKeyTile, (t + 1) * kKeyTile, width))});
    const SequenceSpan span{0, n, kShift, length, tiles.data(), shared};
    Attention a = arguments(d, {&span, 1});
    a.q = d.put(rows(q, lo, length, kHeads * dim));
    a.k = own(k);
    a.v = own(v);
    a.o = d.make(n * kHeads * dim);
    a.lse = d.make(n * kHeads);
    backend.attention(a);
    return {d.get(a.o, n * kHeads * dim), d.get(a.lse, n * kHeads)};
  }

  // All results of the whole, forward and backward.
  std::vector<Array> whole(Backend& backend) const {
    test::Device d(backend, DType::f32);
    const SequenceSpan span{0, length, 0, length};
    const int64_t nq = length * kHeads * dim, nk = length * kKvHeads * dim;
    Attention a = arguments(d, {&span, 1});
    a.q = d.put(q);
    a.k = d.put(k);
    a.v = d.put(v);
    a.o = d.make(nq);
    a.lse = d.make(length * kHeads);
    backend.attention(a);
    void *dq = d.make(nq), *dk = d.make(nk), *dv = d.make(nk);
    backend.attention_backward({.forward = a, .dout = d.put(dout), .dq = dq, .dk = dk, .dv = dv});
    return {d.get(a.o, nq), d.get(a.lse, length * kHeads), d.get(dq, nq), d.get(dk, nk), d.get(dv, nk)};
  }
};

}  // namespace

TEST_CASE("CUDA attention on tensor cores: a query has the same bits wherever it and its keys lie") {
  auto backend = make_backend("cuda-emulated");
  for (auto [dim, window] : {std::pair<int64_t, int64_t>{64, 70}, {128, 0}, {256, 70}}) {
    const Sequence s{290, dim, window, dim != 128};
    const std::vector<Array> whole = s.forward(*backend, 0, 0);
    for (auto [lo, shared] :
         {std::pair<int64_t, int64_t>{131, 0}, {256, 1}, {261, 1}, {274, 0}, {275, 1}, {289, 1}}) {
      INFO("heads of " << dim << ", window " << window << ", queries from " << lo);
      const std::vector<Array> part = s.forward(*backend, lo, shared);
      CHECK(same_bits(part[0], rows(whole[0], lo, s.length, kHeads * dim)));
      CHECK(same_bits(part[1], rows(whole[1], lo, s.length, kHeads)));
    }
  }
}

TEST_CASE("CUDA attention on tensor cores: the same bits in any order of threads, and no bank conflicts") {
  auto backend = make_backend("cuda-emulated");
  for (int64_t dim : {64, 80, 96, 128, 256}) {
    const Sequence s{dim == 256 ? 37 : 66, dim, 0, dim % 64 != 0};  // two tiles of keys
    std::vector<Array> first;
    emulated::reset_counters();
    for_every_schedule([&] {
      INFO("heads of " << dim);
      const std::vector<Array> now = s.whole(*backend);
      if (first.empty()) first = now;
      for (size_t i = 0; i < now.size(); ++i) CHECK(same_bits(now[i], first[i]));
    });
    CHECK(emulated::counters().bank_phases > 0);
    CHECK(emulated::counters().bank_conflicts == 0);
  }
}
