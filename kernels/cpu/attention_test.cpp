// Attention of every instruction set against the plain loops in f64, and its laws of bits.

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/test_floats.h"
#include "kernels/cpu/test_tables.h"
#include "kernels/round_operands.h"

using namespace qlora;
using namespace qlora::test;
using cpu::Kernels;

namespace {

constexpr int64_t kDistances = 700;

// A batch with its inputs and outputs, in f32 or f64.
template <class T>
struct Problem {
  int64_t heads = 6, kv_heads = 2, head_dim, q_rows = 0, k_rows = 0;
  std::vector<SequenceSpan> spans;
  std::vector<T> q, k, v, o, lse, dout, dq, dk, dv, bias;
  Attention a;

  // shaped: scores have a softcap and a bias.
  Problem(std::vector<SequenceSpan> sequences, int64_t window, Operands operands, bool shaped = false,
          int64_t width = 40)
      : head_dim(width), spans(std::move(sequences)) {
    for (const SequenceSpan& s : spans) {
      q_rows = std::max(q_rows, s.q_row + s.q_len);
      k_rows = std::max(k_rows, s.k_row + s.k_len);
    }
    auto fill = [](int64_t n, uint64_t seed) {
      Floats f = random_floats(n, seed);
      return std::vector<T>(f.begin(), f.end());
    };
    const int64_t nq = q_rows * heads * head_dim, nk = k_rows * kv_heads * head_dim;
    q = fill(nq, 1), k = fill(nk, 2), v = fill(nk, 3), dout = fill(nq, 4);
    o = dq = fill(nq, 5), dk = dv = fill(nk, 6), lse = fill(q_rows * heads, 7);
    a = {.q = q.data(),
         .k = k.data(),
         .v = v.data(),
         .o = o.data(),
         .lse = lse.data(),
         .sequences = spans,
         .heads = heads,
         .kv_heads = kv_heads,
         .head_dim = head_dim,
         .scale = 0.7,
         .window = window,
         .type = dtype_of<T>(),
         .operands = operands};
    if (!shaped) return;
    bias = fill(heads * kDistances, 8);
    a.softcap = 2;
    a.bias = bias.data();
    a.distances = kDistances;
  }
  void run(Backend& backend) {
    backend.attention(a);
    backend.attention_backward(
        {.forward = a, .dout = dout.data(), .dq = dq.data(), .dk = dk.data(), .dv = dv.data()});
  }
};

// One sequence of `n` rows, another before it and an empty one between.
std::vector<SequenceSpan> ragged(int64_t n) {
  return {{0, 5, 0, 5}, {5, 0, 5, 0}, {5, n, 5, n}, {5 + n, 1, 5 + n, 1}};
}

// Those that run on a table here.
std::vector<Operands> operands_on(const Kernels& table) {
  std::vector<Operands> all = {Operands::as_stored, Operands::bf16};
  if (test::runs_tiles(table)) all.push_back(Operands::bf16_amx);
  return all;
}

}  // namespace

TEST_CASE("Attention and its gradients agree with the plain loops in f64") {
  auto plain = make_backend("reference");
  for (bool bf16 : {false, true}) {
    // A weight or a score's gradient may fall to the other side of a rounding to bf16.
    const double of_output = bf16 ? 1e-3 : 2e-6, of_gradients = bf16 ? 1e-3 : 1e-5;
    for (int64_t window : {0, 1, 20, 300}) {
      for (int64_t n : {1, 30, 31, 90, 600}) {
        const bool shaped = n == 31 || n == 600;
        Problem<double> expected(ragged(n), window, bf16 ? Operands::bf16 : Operands::as_stored, shaped);
        expected.run(*plain);
        for (const Kernels* kernels : test::runnable_tables()) {
          auto fast = cpu::make_cpu(*kernels);
          for (Operands operands : operands_on(*kernels)) {
            if (is_bf16(operands) != bf16) continue;
            Problem<float> got(ragged(n), window, operands, shaped);
            got.run(*fast);
            INFO(kernels->name << " " << name_of(operands) << " window " << window << " length " << n);
            CHECK(worst(got.lse, expected.lse) < 2e-6);
            CHECK(worst(got.o, expected.o) < of_output);
            CHECK(worst(got.dq, expected.dq) < of_gradients);
            CHECK(worst(got.dk, expected.dk) < of_gradients);
            CHECK(worst(got.dv, expected.dv) < of_gradients);
          }
        }
      }
    }
  }
}

TEST_CASE("Attention by tiles of AMX has the bits of attention by multiply-adds in their order") {
  for (const Kernels* kernels : test::runnable_tables()) {
    if (!test::runs_tiles(*kernels)) continue;
    Kernels without = *kernels;
    without.attention_amx = without.attention_amx_fma;
    without.attention_backward_amx = without.attention_backward_amx_fma;
    auto tiles = cpu::make_cpu(*kernels), adds = cpu::make_cpu(without);
    for (int64_t window : {0, 50})
      for (int64_t n : {1, 33, 60, 140, 300}) {
        Problem<float> a(ragged(n), window, Operands::bf16_amx), other(ragged(n), window, Operands::bf16_amx);
        a.run(*tiles);
        other.run(*adds);
        INFO(kernels->name << " window " << window << " length " << n);
        CHECK(a.o == other.o);
        CHECK(a.lse == other.lse);
        CHECK(a.dq == other.dq);
        CHECK(a.dk == other.dk);
        CHECK(a.dv == other.dv);
      }
  }
}

TEST_CASE("A sequence has the same bits of attention alone and among others and on any number of threads") {
  const int before = thread_count();
  for (const Kernels* kernels : test::runnable_tables()) {
    for (Operands operands : operands_on(*kernels)) {
      auto fast = cpu::make_cpu(*kernels);
      const int64_t n = 131, nq = 6 * 40, nk = 2 * 40;
      set_thread_count(1);
      Problem<float> all(ragged(n), 0, operands), alone({{0, n, 0, n}}, 0, operands),
          threads(ragged(n), 0, operands);
      alone.q.assign(all.q.begin() + 5 * nq, all.q.begin() + (5 + n) * nq);
      alone.dout.assign(all.dout.begin() + 5 * nq, all.dout.begin() + (5 + n) * nq);
      alone.k.assign(all.k.begin() + 5 * nk, all.k.begin() + (5 + n) * nk);
      alone.v.assign(all.v.begin() + 5 * nk, all.v.begin() + (5 + n) * nk);
      alone.a.q = alone.q.data(), alone.a.k = alone.k.data(), alone.a.v = alone.v.data();
      all.run(*fast);
      alone.run(*fast);
      set_thread_count(3);
      threads.run(*fast);
      INFO(kernels->name);
      CHECK(same_bits(all.o.data() + 5 * nq, alone.o.data(), n * nq));
      CHECK(same_bits(all.dq.data() + 5 * nq, alone.dq.data(), n * nq));
      CHECK(same_bits(all.dk.data() + 5 * nk, alone.dk.data(), n * nk));
      CHECK(same_bits(all.dv.data() + 5 * nk, alone.dv.data(), n * nk));
      CHECK(all.dk == threads.dk);
      CHECK(all.dq == threads.dq);
      CHECK(all.o == threads.o);
    }
  }
  set_thread_count(before);
}

TEST_CASE("A query has the same bits of attention with cached keys as in the full pass") {
  for (const Kernels* kernels : test::runnable_tables()) {
    auto fast = cpu::make_cpu(*kernels);
    for (Operands operands : operands_on(*kernels))
      for (int64_t window : {0, 50, 280}) {
        const int64_t n = 610, nq = 6 * 40;
        const bool shaped = window == 50;
        Problem<float> full({{0, n, 0, n}}, window, operands, shaped),
            step({{0, 1, 0, 1}}, window, operands, shaped);
        fast->attention(full.a);
        for (int64_t i : {int64_t{0}, int64_t{84}, int64_t{300}, n - 1}) {
          step.spans = {{0, 1, 0, i + 1}};
          step.a.q = full.q.data() + i * nq;
          step.a.k = full.k.data();
          step.a.v = full.v.data();
          fast->attention(step.a);
          INFO(kernels->name << " window " << window << " query " << i);
          CHECK(same_bits(full.o.data() + i * nq, step.o.data(), nq));
          CHECK(same_bits(full.lse.data() + i * 6, step.lse.data(), 6));
        }
      }
  }
}

TEST_CASE("A sequence has the same bits of attention when other places hold its first tiles of keys") {
  auto check = [](Backend& backend, const char* name, Operands operands) {
    const int64_t nq = 6 * 40, nk = 2 * 40;
    // Of 610 keys none, one or two whole tiles are shared; the queries are those after `done` keys.
    for (int64_t window : {0, 50, 280})
      for (auto [tiles, done] :
           {std::pair<int64_t, int64_t>{1, 256}, {1, 300}, {2, 512}, {2, 530}, {2, 609}}) {
        const int64_t n = 610, rows = n - done, own = n - tiles * kKeyTile;
        const bool shaped = window != 280;
        Problem<float> full({{0, n, 0, n}}, window, operands, shaped),
            rest({{0, rows, 0, own}}, window, operands, shaped);
        backend.attention(full.a);
        // Tiles lie in the reverse order, apart from each other; the shared rows of the batch are spoilt.
        Floats k(static_cast<size_t>(3 * kKeyTile * nk)), v = k;
        std::vector<SharedTile> shared;
        for (int64_t t = 0; t < tiles; ++t) {
          const int64_t at = (2 - t) * kKeyTile * nk;
          std::copy_n(full.k.begin() + t * kKeyTile * nk, kKeyTile * nk, k.begin() + at);
          std::copy_n(full.v.begin() + t * kKeyTile * nk, kKeyTile * nk, v.begin() + at);
          shared.push_back({k.data() + at, v.data() + at});
        }
        std::copy(full.k.begin() + tiles * kKeyTile * nk, full.k.end(), rest.k.begin());
        std::copy(full.v.begin() + tiles * kKeyTile * nk, full.v.end(), rest.v.begin());
        rest.spans = {{0, rows, 0, n, shared.data(), tiles}};
        rest.a.q = full.q.data() + done * nq;
        backend.attention(rest.a);
        INFO(name << " window " << window << ", " << tiles << " tiles, " << done << " keys before");
        CHECK(same_bits(full.o.data() + done * nq, rest.o.data(), rows * nq));
        CHECK(same_bits(full.lse.data() + done * 6, rest.lse.data(), rows * 6));
      }
  };
  for (const Kernels* kernels : test::runnable_tables())
    for (Operands operands : operands_on(*kernels)) check(*cpu::make_cpu(*kernels), kernels->name, operands);
  for (Operands operands : {Operands::as_stored, Operands::bf16})
    check(*make_backend("reference"), "reference", operands);
}

TEST_CASE("Attention has the same bits over keys and values that are kept as bf16") {
  // Some near the smallest normal number: denormals, and those that would round up to it.
  auto with_small = [](Floats values) {
    for (size_t i = 0; i < values.size(); i += 97) values[i] *= 1.2e-38f;
    values[values.size() / 2] = std::bit_cast<float>(0x007fffffu);
    return values;
  };
  auto kept = [](const Floats& values) {
    std::vector<bf16> rounded(values.size());
    round_operands(values.data(), std::ssize(values), rounded.data());
    return rounded;
  };
  auto check = [&](Backend& backend, const char* name, Operands operands, int64_t width, int64_t n) {
    // All queries of a sequence; then its last ones, of token steps and behind a tile that lies elsewhere.
    const int64_t tiles = n / kKeyTile, rest = n - tiles * kKeyTile, few = std::min<int64_t>(n, 4);
    std::vector<std::vector<SequenceSpan>> batches = {{{0, n, 0, n}}, {{0, 1, 0, n}, {1, few, 0, n}}};
    if (tiles > 0) batches.push_back({{0, rest, tiles * kKeyTile, n}, {rest, 1, tiles * kKeyTile, n}});
    for (size_t i = 0; i < batches.size(); ++i) {
      Problem<float> wide(batches[i], n == 33 ? 20 : 0, operands, n == 300, width),
          narrow(batches[i], n == 33 ? 20 : 0, operands, n == 300, width);
      const Floats k = with_small(wide.k), v = with_small(wide.v);
      const std::vector<bf16> kept_k = kept(k), kept_v = kept(v);
      const SharedTile tile = {k.data(), v.data()}, kept_tile = {kept_k.data(), kept_v.data()};
      for (auto* problem : {&wide, &narrow})
        for (SequenceSpan& span : problem->spans) {
          span.shared = i < 2 ? nullptr : problem == &wide ? &tile : &kept_tile;
          span.shared_tiles = i < 2 ? 0 : tiles;
        }
      wide.a.k = k.data(), wide.a.v = v.data();
      narrow.a.k = kept_k.data(), narrow.a.v = kept_v.data(), narrow.a.kv_type = DType::bf16;
      backend.attention(wide.a);
      backend.attention(narrow.a);
      INFO(name << " " << name_of(operands) << " heads of " << width << ", length " << n << ", batch " << i);
      CHECK(same_bits(wide.o, narrow.o));
      CHECK(same_bits(wide.lse, narrow.lse));
    }
  };
  for (int64_t width : {40, 64})
    for (int64_t n : {1, 33, 300}) {
      for (const Kernels* kernels : test::runnable_tables())
        for (Operands operands : operands_on(*kernels))
          if (is_bf16(operands)) check(*cpu::make_cpu(*kernels), kernels->name, operands, width, n);
      check(*make_backend("reference"), "reference", Operands::bf16, width, n);
    }
}
