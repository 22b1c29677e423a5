// The linear layer with several runs' adapters: gradients are slopes, packed = alone, and micro-batches
// change no bit. Dropout is on throughout.

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/chosen.h"
#include "kernels/devices.h"

using namespace qlora;
using namespace qlora::test;

namespace {


struct TestAdapter {
  int64_t rank;
  double scale;
  float dropout;
  std::vector<Array> a = {}, b = {};  // per term
};

struct Sizes {
  int64_t in = 70;
  std::vector<int64_t> outs = {33, 20};  // per term
  std::vector<int64_t> lengths = {6, 1, 9, 4, 13};
  std::vector<size_t> adapter_of = {0, 0, 1, 2, 2};  // per sequence, ascending
};

// Beyond what the SIMD products cut their sums and their work into: chunks of 320 terms, blocks of 504 rows,
// super-chunks of 4,096 terms. The terms of the gradients of an adapter are the rows of a sequence.
std::vector<Sizes> long_sizes() {
  return {{330, {340}, {5, 700, 2, 330}, {0, 1, 1, 2}}, {20, {18}, {3, 4200, 7, 321}, {0, 1, 1, 2}}};
}

// More rows than a tile of a GPU's kernels has, in the pack, in runs alone and in micro-batches: products by
// cuBLAS.
Sizes many_rows() {
  return {70, {33, 20}, {40, 30, 41, 4, 70}, {0, 0, 1, 2, 2}};
}

// The same with long sequences, of which gradients are products by cuBLAS too.
Sizes long_rows() {
  return {20, {18, 11}, {300, 270, 260, 5, 530}, {0, 0, 1, 2, 2}};
}

// A micro-batch: sequences, in the order in which their rows lie.
using MicroBatch = std::vector<size_t>;

// Sequences of several runs through one layer of some terms, and the sum of dy * y as its loss.
struct Problem : Sizes {
  std::vector<TestWeight> weights = {};
  std::vector<Array> biases = {};
  Operands operands = Operands::as_stored;
  std::vector<TestAdapter> adapters = {{4, 2, 0.1f}, {9, 0.5, 0.5f}, {1, 1, 0}};
  Array x = {};
  Array dx_before = {};        // what dx holds when the gradient is to be added to it
  std::vector<Array> dy = {};  // per term

  explicit Problem(Format format, Sizes sizes = {}, Operands read_as = Operands::as_stored)
      : Sizes(std::move(sizes)), operands(read_as) {
    for (size_t t = 0; t < outs.size(); ++t) {
      weights.push_back(make_weight(t, format, true, outs[t], in));
      biases.push_back(normals(20 + t, outs[t]));
      dy.push_back(normals(30 + t, rows() * outs[t]));
      for (size_t i = 0; i < adapters.size(); ++i) {
        adapters[i].a.push_back(normals(40 + 2 * t + 7 * i, adapters[i].rank * in, 0.3));
        adapters[i].b.push_back(normals(41 + 2 * t + 7 * i, outs[t] * adapters[i].rank, 0.3));
      }
    }
    x = normals(50, rows() * in);
    dx_before = normals(51, rows() * in);
  }
  int64_t first_row(size_t sequence) const {
    int64_t row = 0;
    for (size_t s = 0; s < sequence; ++s) row += lengths[s];
    return row;
  }
  int64_t rows() const { return first_row(lengths.size()); }
  MicroBatch everything() const {
    MicroBatch all;
    for (size_t s = 0; s < lengths.size(); ++s) all.push_back(s);
    return all;
  }
  MicroBatch sequences_of(size_t adapter) const {
    MicroBatch some;
    for (size_t s = 0; s < lengths.size(); ++s) {
      if (adapter_of[s] == adapter) some.push_back(s);
    }
    return some;
  }
};

struct Outcome {
  std::vector<Array> y;  // per term, [rows, out], of the whole problem; untouched rows are 0
  Array dx;              // [rows, in]
  std::vector<std::vector<Array>> grad_a, grad_b;  // [adapter][term]
};

class Runner {
 public:
  bool unread = false;  // nobody wants y
  bool keeps = false;   // backward is given what dropout keeps
  Runner(const Problem& p, Backend& backend, DType type, Write mode)
      : p_(p), d_(backend, type, 0, p.operands), mode_(mode) {
    for (const TestAdapter& adapter : p.adapters) {
      std::vector<LoraPart> per_term;
      for (size_t t = 0; t < p.outs.size(); ++t) {
        LoraPart part{.a = d_.put(adapter.a[t]), .b = d_.put(adapter.b[t]), .rank = adapter.rank};
        part.scale = adapter.scale;
        part.dropout = {.p = adapter.dropout, .key = mix_seed(8, per_term.size()), .step = 4};
        part.grad_a = d_.put(Array(adapter.a[t].size()));
        part.grad_b = d_.put(Array(adapter.b[t].size()));
        per_term.push_back(part);
      }
      parts_.push_back(per_term);
    }
    for (int64_t out : p.outs) result_.y.emplace_back(static_cast<size_t>(p.rows() * out));
    result_.dx.resize(static_cast<size_t>(p.rows() * p.in));
  }

  void step(const MicroBatch& batch, bool backward) {
    gather(batch);
    std::vector<std::vector<LoraPart>> lora(p_.outs.size());
    std::vector<LinearTerm> terms;
    std::vector<LinearBackwardTerm> back;
    for (size_t t = 0; t < p_.outs.size(); ++t) {
      for (const Span& span : spans_) {
        LoraPart part = parts_[span.adapter][t];
        part.lo = span.lo;
        part.hi = span.hi;
        part.u = d_.make((part.hi - part.lo) * part.rank);
        if (keeps) {
          const std::vector<uint8_t> bits(static_cast<size_t>((part.hi - part.lo) * kept_bytes(p_.in)), 0x5a);
          part.kept = d_.put_raw(bits);
        }
        lora[t].push_back(part);
      }
      WeightView w = p_.weights[t].view(d_);
      LinearTerm term{.w = w, .bias = d_.put(p_.biases[t]), .lora = lora[t]};
      if (!unread) term.y = d_.make(rows_ * p_.outs[t]);
      terms.push_back(term);
      back.push_back({.w = w, .lora = lora[t], .dy = d_.put(dy_[t])});
    }
    const void* x = d_.put(x_);
    d_.backend().linear({.x = x,
                         .rows = rows_,
                         .terms = terms,
                         .keys = keys_.data(),
                         .type = d_.type(),
                         .operands = d_.operands()});
    for (size_t t = 0; t < terms.size() && !unread; ++t) scatter(batch, terms[t].y, p_.outs[t], result_.y[t]);
    if (!backward) return;
    LinearBackward b{.x = x, .rows = rows_, .terms = back, .sequences = sequences_};
    if (!keeps) b.keys = keys_.data();  // else there is nothing to draw
    b.dx = mode_ == Write::accumulate ? d_.put(dx_before_) : d_.make(rows_ * p_.in);
    b.mode = mode_;
    b.type = b.x_type = d_.type();
    b.operands = d_.operands();
    d_.backend().linear_backward(b);
    scatter(batch, b.dx, p_.in, result_.dx);
  }

  Outcome finish() {
    for (size_t i = 0; i < parts_.size(); ++i) {
      std::vector<Array> a, b;
      for (size_t t = 0; t < p_.outs.size(); ++t) {
        a.push_back(d_.get(parts_[i][t].grad_a, static_cast<int64_t>(p_.adapters[i].a[t].size())));
        b.push_back(d_.get(parts_[i][t].grad_b, static_cast<int64_t>(p_.adapters[i].b[t].size())));
      }
      result_.grad_a.push_back(a);
      result_.grad_b.push_back(b);
    }
    d_.check_guards();
    return result_;
  }

 private:
  struct Span {
    int64_t lo, hi;
    size_t adapter;
  };

  void gather(const MicroBatch& batch) {
    rows_ = 0;
    sequences_ = {0};
    spans_.clear();
    keys_.clear();
    x_.clear();
    dx_before_.clear();
    dy_.assign(p_.outs.size(), {});
    for (size_t s : batch) {
      int64_t first = p_.first_row(s), n = p_.lengths[s];
      append(x_, p_.x, first, n, p_.in);
      append(dx_before_, p_.dx_before, first, n, p_.in);
      for (size_t t = 0; t < p_.outs.size(); ++t) append(dy_[t], p_.dy[t], first, n, p_.outs[t]);
      for (int64_t r = 0; r < n; ++r) keys_.push_back({static_cast<uint32_t>(s), static_cast<uint32_t>(r)});
      if (spans_.empty() || spans_.back().adapter != p_.adapter_of[s]) {
        spans_.push_back({rows_, rows_, p_.adapter_of[s]});
      }
      rows_ += n;
      spans_.back().hi = rows_;
      sequences_.push_back(static_cast<int32_t>(rows_));
    }
  }
  static void append(Array& to, const Array& from, int64_t row, int64_t rows, int64_t width) {
    to.insert(to.end(), from.begin() + row * width, from.begin() + (row + rows) * width);
  }
  void scatter(const MicroBatch& batch, const void* p, int64_t width, Array& to) {
    Array values = d_.get(p, rows_ * width);
    int64_t row = 0;
    for (size_t s : batch) {
      std::copy_n(values.begin() + row * width, p_.lengths[s] * width, to.begin() + p_.first_row(s) * width);
      row += p_.lengths[s];
    }
  }

  const Problem& p_;
  Device d_;
  Write mode_;
  std::vector<std::vector<LoraPart>> parts_;  // [adapter][term]
  Outcome result_;
  // The current micro-batch.
  int64_t rows_ = 0;
  std::vector<int32_t> sequences_;
  std::vector<Span> spans_;
  std::vector<RowKey> keys_;
  Array x_, dx_before_;
  std::vector<Array> dy_;
};

Outcome run(const Problem& p, Backend& backend, DType type, const std::vector<MicroBatch>& batches,
            bool backward = true, Write mode = Write::overwrite) {
  Runner runner(p, backend, type, mode);
  for (const MicroBatch& batch : batches) runner.step(batch, backward);
  return runner.finish();
}

double loss(const Problem& p, Backend& backend) {
  Outcome o = run(p, backend, DType::f64, {{0, 1, 2, 3, 4}}, false);
  double sum = 0;
  for (size_t t = 0; t < p.outs.size(); ++t) {
    for (size_t i = 0; i < p.dy[t].size(); ++i) sum += p.dy[t][i] * o.y[t][i];
  }
  return sum;
}

// The loss is linear in each operand alone, so that a wide step costs no accuracy.
void check_slopes(const std::string& what, Problem& p, Backend& backend, Array& values,
                  const Array& gradient) {
  size_t stride = std::max<size_t>(1, values.size() / 13);
  for (size_t i = 0; i < values.size(); i += stride) {
    double kept = values[i];
    values[i] = kept + 0.5;
    double above = loss(p, backend);
    values[i] = kept - 0.5;
    double slope = above - loss(p, backend);
    values[i] = kept;
    INFO(what << " element " << i << ": slope " << slope << ", gradient " << gradient[i]);
    CHECK(std::abs(slope - gradient[i]) <= 1e-10 * (1 + std::abs(slope)));
  }
}

// The whole batch at once, and cut into micro-batches of one, two and three sequences.
void check_cuts(const std::string& name, const Problem& p) {
  auto backend = make_test_backend(name);
  const MicroBatch all = p.everything();
  Outcome whole = run(p, *backend, DType::f32, {all});
  for (size_t size : {1, 2, 3}) {
    std::vector<MicroBatch> cut;
    for (size_t s : all) {
      if (s % size == 0) cut.emplace_back();
      cut.back().push_back(s);
    }
    INFO(name << ", " << p.rows() << " rows in micro-batches of " << size);
    Outcome parts = run(p, *backend, DType::f32, cut);
    CHECK(same_bits(parts.dx, whole.dx));
    for (size_t t = 0; t < p.outs.size(); ++t) {
      CHECK(same_bits(parts.y[t], whole.y[t]));
      for (size_t i = 0; i < p.adapters.size(); ++i) {
        CHECK(same_bits(parts.grad_a[i][t], whole.grad_a[i][t]));
        CHECK(same_bits(parts.grad_b[i][t], whole.grad_b[i][t]));
      }
    }
  }
}

// Every run alone, and between the others.
void check_alone(const std::string& name, const Problem& p) {
  auto backend = make_test_backend(name);
  Outcome packed = run(p, *backend, DType::f32, {p.everything()});
  for (size_t i = 0; i < p.adapters.size(); ++i) {
    INFO(name << ", " << p.rows() << " rows, run " << i);
    Outcome alone = run(p, *backend, DType::f32, {p.sequences_of(i)});
    for (size_t t = 0; t < p.outs.size(); ++t) {
      CHECK(same_bits(alone.grad_a[i][t], packed.grad_a[i][t]));
      CHECK(same_bits(alone.grad_b[i][t], packed.grad_b[i][t]));
    }
    for (size_t s : p.sequences_of(i)) {
      auto rows = [&](const Array& all, int64_t width) {
        auto begin = all.begin() + p.first_row(s) * width;
        return Array(begin, begin + p.lengths[s] * width);
      };
      CHECK(same_bits(rows(alone.dx, p.in), rows(packed.dx, p.in)));
      for (size_t t = 0; t < p.outs.size(); ++t) {
        CHECK(same_bits(rows(alone.y[t], p.outs[t]), rows(packed.y[t], p.outs[t])));
      }
    }
  }
}

}  // namespace

TEST_CASE("The gradients of the linear layer are its slopes with dropout on") {
  auto backend = make_backend("reference");
  Problem p(Format::nf4);
  Outcome o = run(p, *backend, DType::f64, {{0, 1, 2, 3, 4}});
  check_slopes("x", p, *backend, p.x, o.dx);
  for (size_t i = 0; i < p.adapters.size(); ++i) {
    for (size_t t = 0; t < p.outs.size(); ++t) {
      std::string where = " of adapter " + std::to_string(i) + " term " + std::to_string(t);
      check_slopes("a" + where, p, *backend, p.adapters[i].a[t], o.grad_a[i][t]);
      check_slopes("b" + where, p, *backend, p.adapters[i].b[t], o.grad_b[i][t]);
    }
  }
}

TEST_CASE("A layer whose output nobody reads has the same gradients") {
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    for (Operands operands : kAllOperands) {
      INFO(name);
      Problem p(Format::nf4, long_sizes()[0], operands);
      Outcome read = run(p, *backend, DType::f32, {p.everything()});
      Runner runner(p, *backend, DType::f32, Write::overwrite);
      runner.unread = true;
      runner.step(p.everything(), true);
      Outcome unread = runner.finish();
      CHECK(same_bits(unread.dx, read.dx));
      for (size_t i = 0; i < p.adapters.size(); ++i)
        for (size_t t = 0; t < p.outs.size(); ++t) {
          CHECK(same_bits(unread.grad_a[i][t], read.grad_a[i][t]));
          CHECK(same_bits(unread.grad_b[i][t], read.grad_b[i][t]));
        }
    }
  }
}

TEST_CASE("Backward that is given what dropout keeps has the bits of backward that draws it again") {
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    if (!backend->keeps_dropout()) continue;
    for (Operands operands : kAllOperands)
      for (const Sizes& sizes : {Sizes{}, many_rows()}) {
        const Problem p(Format::nf4, sizes, operands);
        // Of few rows, too.
        const std::vector<MicroBatch> batches = {p.everything(), {0, 1}, {2, 3}};
        for (bool unread : {false, true}) {
          INFO(name << " " << name_of(operands) << ", " << p.rows() << " rows");
          Runner runner(p, *backend, DType::f32, Write::overwrite);
          runner.keeps = true;
          runner.unread = unread;
          for (const MicroBatch& batch : batches) runner.step(batch, true);
          const Outcome kept = runner.finish(), drawn = run(p, *backend, DType::f32, batches);
          CHECK(same_bits(kept.dx, drawn.dx));
          for (size_t t = 0; t < p.outs.size(); ++t) {
            CHECK((unread || same_bits(kept.y[t], drawn.y[t])));
            for (size_t i = 0; i < p.adapters.size(); ++i) {
              CHECK(same_bits(kept.grad_a[i][t], drawn.grad_a[i][t]));
              CHECK(same_bits(kept.grad_b[i][t], drawn.grad_b[i][t]));
            }
          }
        }
      }
  }
}

TEST_CASE("Cutting an effective batch into micro-batches changes no bit of the linear layer") {
  for (const std::string& name : available_backends()) {
    for (Operands operands : kAllOperands) {
      for (Format format : {Format::dense, Format::nf4, Format::int8})
        check_cuts(name, Problem(format, {}, operands));
      for (const Sizes& sizes : {many_rows(), long_rows()})
        check_cuts(name, Problem(Format::nf4, sizes, operands));
      if (name == "reference" || name == kEmulatedGpu) continue;  // their sums have no pieces
      for (const Sizes& sizes : long_sizes()) check_cuts(name, Problem(Format::nf4, sizes, operands));
    }
  }
}

TEST_CASE("A gradient that is added to another is finished first and rounded once more") {
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    INFO(name);
    for (Operands operands : kAllOperands) {
      for (const Sizes& sizes : {Sizes{}, many_rows()}) {
        Problem p(Format::nf4, sizes, operands);
        // All runs; and the last two sequences, of one.
        for (const MicroBatch& batch : {p.everything(), MicroBatch{3, 4}}) {
          Outcome alone = run(p, *backend, DType::f32, {batch});
          Outcome added = run(p, *backend, DType::f32, {batch}, true, Write::accumulate);
          Array expected = alone.dx;
          for (size_t i = static_cast<size_t>(p.first_row(batch[0]) * p.in); i < expected.size(); ++i) {
            expected[i] = static_cast<double>(static_cast<float>(p.dx_before[i] + alone.dx[i]));
          }
          CHECK(same_bits(added.dx, expected));
        }
      }
    }
  }
}

TEST_CASE("A run has the same bits alone in the linear layer and packed between others") {
  for (const std::string& name : available_backends()) {
    for (Operands operands : kAllOperands) {
      for (Format format : {Format::nf4, Format::int8}) check_alone(name, Problem(format, {}, operands));
      for (const Sizes& sizes : {many_rows(), long_rows()}) {
        Problem many(Format::nf4, sizes, operands);
        many.adapters[0].scale = 1.5;  // no power of two
        check_alone(name, many);
      }
      if (name == "reference" || name == kEmulatedGpu) continue;  // their sums have no pieces
      for (const Sizes& sizes : long_sizes()) check_alone(name, Problem(Format::nf4, sizes, operands));
    }
  }
}

TEST_CASE("The linear layer on a GPU has the same bits by cublasLt, by cublasGemmEx and without cuBLAS") {
  struct Way {
    const char* lt;
    bool blas;
  };
  for (const Sizes& sizes : {many_rows(), long_rows()}) {
    Problem p(Format::nf4, sizes, Operands::bf16);
    p.adapters[0].scale = 1.5;
    std::vector<Outcome> all;
    std::vector<DeviceUse> used;
    for (const Way& way : {Way{"on", true}, Way{"off", true}, Way{"on", false}}) {
      const emulated::test::Chosen chosen("QLORA_CUBLASLT", way.lt);
      auto backend = make_backend(kEmulatedGpu, {.blas = way.blas});
      const DeviceUse before = device_use(kEmulatedGpu);
      all.push_back(run(p, *backend, DType::f32, {{0, 1}, {2}, {3, 4}, p.everything()}));
      const DeviceUse after = device_use(kEmulatedGpu);
      used.push_back({after.by_lt - before.by_lt, after.by_gemm - before.by_gemm});
    }
    CHECK((used[0].by_lt > 0 && used[0].by_gemm == 0));
    CHECK((used[1].by_gemm == used[0].by_lt && used[1].by_lt == 0));
    CHECK((used[2].by_lt == 0 && used[2].by_gemm == 0));
    for (size_t way = 1; way < all.size(); ++way) {
      CHECK(same_bits(all[0].dx, all[way].dx));
      for (size_t t = 0; t < p.outs.size(); ++t) {
        CHECK(same_bits(all[0].y[t], all[way].y[t]));
        for (size_t i = 0; i < p.adapters.size(); ++i) {
          CHECK(same_bits(all[0].grad_a[i][t], all[way].grad_a[i][t]));
          CHECK(same_bits(all[0].grad_b[i][t], all[way].grad_b[i][t]));
        }
      }
    }
  }
}

TEST_CASE("Dropout keeps what its random numbers say and scales it") {
  // With the base weight zero, a the identity and b the identity, y is the dropped x itself.
  constexpr int64_t kRows = 40, kIn = 30;
  constexpr float kP = 0.3f;
  Array identity(kIn * kIn);
  for (size_t i = 0; i < kIn; ++i) identity[i * kIn + i] = 1;
  Array x = normals(1, kRows * kIn);
  std::vector<RowKey> keys = row_keys(kRows);
  for (const std::string& name : available_backends()) {
    INFO(name);
    auto backend = make_test_backend(name);
    Device d(*backend, DType::f32);
    WeightView w{.out = kIn, .in = kIn, .data = d.put(Array(kIn * kIn))};
    LoraPart part{.hi = kRows, .a = d.put(identity), .b = d.put(identity), .rank = kIn};
    part.dropout = {.p = kP, .key = 99, .step = 12};
    part.u = d.make(kRows * kIn);
    LinearTerm term{.w = w, .lora = {&part, 1}, .y = d.make(kRows * kIn)};
    d.backend().linear({.x = d.put(x), .rows = kRows, .terms = {&term, 1}, .keys = keys.data()});
    Array y = d.get(term.y, kRows * kIn);
    int64_t kept = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      RowKey key = keys[static_cast<size_t>(row)];
      for (int64_t column = 0; column < kIn; ++column) {
        auto block = static_cast<uint32_t>(column / 4);
        bool keep = uniform01(philox(99, block, key.position, key.example, 12).v[column % 4]) >= kP;
        auto i = static_cast<size_t>(row * kIn + column);
        double expected = keep ? static_cast<double>(static_cast<float>(x[i]) * (1 / (1 - kP))) : 0;
        CHECK(std::abs(y[i] - expected) <= 1e-6 * std::abs(expected));
        kept += keep;
      }
    }
    CHECK(std::abs(static_cast<double>(kept) / (kRows * kIn) - 0.7) < 0.05);
  }
}
