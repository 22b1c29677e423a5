// The backend that computes nothing: the real model code runs on it to learn how much memory and work a step
// needs.

#include <algorithm>
#include <cstring>

#include "core/base/parallel.h"
#include "kernels/backend.h"
#include "kernels/device_scratch.h"
#include "kernels/scratch.h"

namespace qlora {
namespace {

// Addresses are never dereferenced and never given twice; they start high, so that a mistake faults.
constexpr uintptr_t kFirstAddress = uintptr_t{1} << 60;
constexpr uintptr_t kAlignment = 256;

double size(DType type) {
  return static_cast<double>(size_of(type));
}

double product(int64_t a, int64_t b) {
  return static_cast<double>(a) * static_cast<double>(b);
}
double product(int64_t a, int64_t b, int64_t c) {
  return product(a, b) * static_cast<double>(c);
}

// Bytes that a pass over the weight reads.
double weight_bytes(const WeightView& w) {
  int64_t n = w.out * w.in;
  if (w.format == Format::dense) return static_cast<double>(n) * size(w.type);
  double blocks = static_cast<double>((n + w.block - 1) / w.block);
  return static_cast<double>(packed_bytes(w.format, n)) + blocks * (w.absmax_codes != nullptr ? 1.0 : 4.0);
}

constexpr double kTanhFlops = 20;

double visited(Write mode) {
  return mode == Write::accumulate ? 2 : 1;
}

// How many (query, key) pairs the mask lets through, in one head.
double visible_pairs(const Attention& a) {
  double pairs = 0;
  for (const SequenceSpan& s : a.sequences) {
    auto queries = static_cast<double>(s.q_len), keys = static_cast<double>(s.k_len);
    pairs += queries * keys - queries * (queries - 1) / 2;
    if (a.window > 0) {
      // Query at position p sees min(p + 1, window) keys: take off what lies before the window.
      double most = keys - static_cast<double>(a.window);
      double least = std::max(0.0, most - queries + 1);
      if (most > 0) pairs -= (most + least) * (most - least + 1) / 2;
    }
  }
  return pairs;
}

// Of making a score from a product: a tanh and its slope, or an addition.
double score_flops(const Attention& a) {
  return (a.softcap > 0 ? kTanhFlops + 3 : 0) + (a.bias != nullptr ? 1 : 0);
}

double query_elements(const Attention& a) {
  double rows = 0;
  for (const SequenceSpan& s : a.sequences) rows += static_cast<double>(s.q_len);
  return rows * product(a.heads, a.head_dim);
}

double key_elements(const Attention& a) {
  double rows = 0;
  for (const SequenceSpan& s : a.sequences) rows += static_cast<double>(s.k_len);
  return rows * product(a.kv_heads, a.head_dim);
}

// What the kernels of one kind of backend keep for themselves.
size_t kept_by(const ScratchNeed& need) {
  return need.bytes(thread_count());
}
size_t kept_by(const DeviceScratchNeed& need) {
  return need.bytes();
}
size_t slabs_of(const ScratchNeed&) {
  return 0;
}
size_t decoded_by(const ScratchNeed&) {
  return 0;
}
size_t decoded_by(const DeviceScratchNeed& need) {
  return need.decoded();
}
bool operands_stored_by(const ScratchNeed&) {
  return true;
}
bool operands_stored_by(const DeviceScratchNeed&) {
  return false;
}
bool dropout_kept_by(const ScratchNeed&) {
  return true;
}
bool dropout_kept_by(const DeviceScratchNeed&) {
  return false;
}
void start(ScratchNeed& need, const DeviceOptions&) {
  need = {};
}
void start(DeviceScratchNeed& need, const DeviceOptions& options) {
  need = DeviceScratchNeed(options);
}
size_t slabs_of(const DeviceScratchNeed& need) {
  return need.slabs();
}

template <class Need>
class Counting final : public CountingBackend {
 public:
  std::string_view name() const override { return "counting"; }
  bool host_memory() const override { return false; }
  bool stores_operands() const override { return operands_stored_by(scratch_); }
  bool keeps_dropout() const override { return dropout_kept_by(scratch_); }
  const Work& work() const override { return work_; }
  void reset(const DeviceOptions& options) override {
    work_ = {};
    start(scratch_, options);
  }
  size_t scratch_bytes() const override { return kept_by(scratch_); }
  size_t slab_bytes() const override { return slabs_of(scratch_); }
  size_t decoded_bytes() const override { return decoded_by(scratch_); }

  void* allocate(size_t bytes) override {
    uintptr_t address = next_;
    next_ += (bytes + kAlignment) / kAlignment * kAlignment;  // zero bytes too have an address of their own
    return reinterpret_cast<void*>(address);
  }
  void release(void*, size_t) noexcept override {}
  void copy(void* dst, const void*, size_t bytes, CopyKind kind) override {
    if (kind == CopyKind::device_to_host && bytes > 0) std::memset(dst, 0, bytes);
  }
  void fill(void*, size_t, uint8_t) override {}
  void synchronize() override {}
  void* allocate_host(size_t bytes) override { return allocate(bytes); }
  void release_host(void*, size_t) noexcept override {}
  void copy_beside(void*, const void*, size_t, CopyKind) override {}
  void await_copies() override {}

  void gemm(const Gemm& a) override {
    need(a);
    count(2 * product(a.m, a.n, a.k), product(a.m, a.k) * size(a.x_type) +
                                          visited(a.mode) * product(a.m, a.n) * size(a.type) +
                                          product(a.n, a.k) * size(a.w_type));
  }
  void qgemm(const QGemm& a) override {
    need(a);
    const bool forward = a.layout == Layout::nt;
    count(2 * product(a.rows, a.w.out, a.w.in),
          weight_bytes(a.w) + product(a.rows, forward ? a.w.in : a.w.out) * size(a.x_type) +
              visited(a.mode) * product(a.rows, forward ? a.w.out : a.w.in) * size(a.type));
  }
  void dequantize(const Dequantize& a) override {
    need(a);
    count(product(a.w.out, a.w.in), weight_bytes(a.w) + product(a.w.out, a.w.in) * size(a.type));
  }
  void linear(const Linear& a) override;
  void linear_backward(const LinearBackward& a) override;

  void attention(const Attention& a) override {
    need(a);
    count(visible_pairs(a) * static_cast<double>(a.heads) *
              (4 * static_cast<double>(a.head_dim) + score_flops(a)),
          query_elements(a) * (size(a.q_type) + size(a.type)) + 2 * key_elements(a) * size(a.kv_type));
  }
  void attention_backward(const AttentionBackward& b) override {
    need(b);
    const Attention& a = b.forward;
    count(visible_pairs(a) * static_cast<double>(a.heads) *
              (10 * static_cast<double>(a.head_dim) + score_flops(a)),
          query_elements(a) * (size(a.q_type) + 3 * size(a.type)) +
              2 * key_elements(a) * (size(a.kv_type) + size(a.type)));
  }

  void rms_norm(const RmsNorm& a) override {
    const bool sums = a.residual != nullptr;
    elements(a.rows * a.cols, sums ? 5 : 4, sums ? 3 : 1, a.type, a.y_type);
  }
  void rms_norm_backward(const RmsNormBackward& a) override {
    const bool adds = a.mode == Write::overwrite && a.beside != nullptr;
    elements(a.rows * a.cols, adds ? 9 : 8, 2 + visited(a.mode) + (adds ? 1 : 0), a.type);
  }
  void layer_norm(const LayerNorm& a) override {
    const bool sums = a.residual != nullptr;
    elements(a.rows * a.cols, sums ? 8 : 7, sums ? 3 : 1, a.type, a.y_type);
  }
  void layer_norm_backward(const LayerNormBackward& a) override {
    const bool adds = a.mode == Write::overwrite && a.beside != nullptr;
    elements(a.rows * a.cols, adds ? 11 : 10, 2 + visited(a.mode) + (adds ? 1 : 0), a.type);
  }
  void rope_table(const RopeTable& a) override {
    need(a);
    elements(a.rows * a.half, 3, 2, a.type);
  }
  void rope(const Rope& a) override {
    const int64_t heads = a.rows * a.heads;
    count(3 * product(heads, rotated(a)),
          product(heads, a.head_dim) * (visited(a.mode) * size(a.type) + size(a.y_type)));
  }
  // As many operations as silu takes, whichever it is.
  void activate(const Activate& a) override {
    elements(a.n, a.up != nullptr ? 5 : 4, a.up != nullptr ? 2 : 1, a.type, a.y_type);
  }
  void activate_backward(const ActivateBackward& a) override {
    elements(a.n, a.up != nullptr ? 10 : 8, a.up != nullptr ? 5 : 3, a.type);
  }
  void add(const Add& a) override { elements(a.n, 1, 3, a.type); }
  void gather_rows(const GatherRows& a) override {
    need(a);
    count(0, product(a.rows, a.cols) * (size(a.type) + size(a.table_type)));
  }
  void scatter_rows(const ScatterRows& a) override {
    need(a);
    count(0, (product(a.rows, a.cols) * (1 + visited(a.mode)) +
              (a.mode == Write::overwrite ? product(a.total - a.rows, a.cols) : 0)) *
                 size(a.type));
  }
  void copy_columns(const CopyColumns& a) override {
    count(0, product(a.rows, a.cols) * (1 + visited(a.mode)) * size(a.type));
  }

  void cross_entropy(const CrossEntropy& a) override {
    need(a);
    elements(a.rows * a.vocab, (a.dlogits != nullptr ? 8 : 4) + (a.softcap > 0 ? kTanhFlops : 0),
             a.dlogits != nullptr ? 2 : 1, a.type);
  }
  void softcap(const Softcap& a) override { elements(a.n, kTanhFlops, 2, a.type); }
  void sum_squares(const SumSquares& a) override {
    need(a);
    int64_t n = 0;
    for (const TensorRef& t : a.tensors) n += t.n;
    elements(n, 2, 1, a.type);
  }
  void adamw(const AdamW& a) override {
    need(a);
    int64_t n = 0;
    for (const AdamTensor& t : a.tensors) n += t.n;
    elements(n, 14, 7, a.type);
  }
  void adamw8(const AdamW8& a) override {
    need(a);
    int64_t n = 0;
    for (const Adam8Tensor& t : a.tensors) n += t.n;
    // Two searches of eight comparisons each beside the update; codes are read and written, a byte each.
    count(static_cast<double>(n) * (14 + 2 * 8), static_cast<double>(n) * (3 * size(a.type) + 4));
  }
  // An exponential a logit; logits are read as often as the kernel likes, once from memory.
  void sample(const Sample& a) override {
    need(a);
    elements(a.rows * a.vocab, 20, 1, a.type);
  }

 private:
  // Not every kernel of every backend keeps anything.
  template <class Args>
  void need(const Args& a) {
    if constexpr (requires { scratch_.add(a); }) scratch_.add(a);
  }
  void count(double flops, double bytes) {
    work_.flops += flops;
    work_.bytes += bytes;
    ++work_.calls;
  }
  // n elements, each of `flops` operations and touched `visits` times in memory.
  void elements(int64_t n, double flops, double visits, DType type) {
    count(static_cast<double>(n) * flops, static_cast<double>(n) * visits * size(type));
  }
  // The same, and written once as another type.
  void elements(int64_t n, double flops, double visits, DType type, DType result) {
    const auto all = static_cast<double>(n);
    count(all * flops, all * (visits * size(type) + size(result)));
  }
  // Of a product with w: x, and y written once.
  static double quantized_bytes(const WeightView& w, int64_t rows, DType x_type, DType type) {
    return weight_bytes(w) + product(rows, w.in) * size(x_type) + product(rows, w.out) * size(type);
  }

  uintptr_t next_ = kFirstAddress;
  Work work_;
  Need scratch_;
};

template <class Need>
void Counting<Need>::linear(const Linear& a) {
  need(a);
  double flops = 0, bytes = 0;
  for (const LinearTerm& term : a.terms) {
    const int64_t out = term.y == nullptr ? 0 : term.w.out;  // without y only u is computed
    if (term.y != nullptr) {
      flops += 2 * product(a.rows, out, term.w.in);
      bytes += quantized_bytes(term.w, a.rows, a.x_type, a.type);
    }
    for (const LoraPart& part : term.lora) {
      double rows = static_cast<double>(part.hi - part.lo), rank = static_cast<double>(part.rank);
      double sides = static_cast<double>(term.w.in + out);
      flops += 2 * rows * rank * sides;
      // x is read once more, u written and read; the delta is added while y is written.
      bytes += rows * static_cast<double>(term.w.in) * size(a.x_type) +
               (rank * sides + 2 * rows * rank) * size(a.type);
    }
  }
  count(flops, bytes);
}

template <class Need>
void Counting<Need>::linear_backward(const LinearBackward& a) {
  need(a);
  double flops = 0, bytes = 0;
  for (const LinearBackwardTerm& term : a.terms) {
    if (a.dx != nullptr) {
      flops += 2 * product(a.rows, term.w.out, term.w.in);
      bytes += quantized_bytes(term.w, a.rows, a.type, a.type);
    }
    for (const LoraPart& part : term.lora) {
      double rows = static_cast<double>(part.hi - part.lo), rank = static_cast<double>(part.rank);
      double in = static_cast<double>(term.w.in), out = static_cast<double>(term.w.out);
      // du and grad_b go over dy, grad_a over x; the share of dx is added while that is written.
      double products = a.dx != nullptr ? 2 : 1;
      flops += 2 * rows * rank * (2 * out + products * in);
      bytes += rows * in * size(a.x_type) +
               (2 * rows * out + 3 * rank * (in + out) + 3 * rows * rank) * size(a.type);
    }
  }
  count(flops, bytes);
}

}  // namespace

std::unique_ptr<CountingBackend> make_counting_backend(CountedKernels kernels) {
  if (kernels == CountedKernels::cuda) return std::make_unique<Counting<DeviceScratchNeed>>();
  return std::make_unique<Counting<ScratchNeed>>();
}

}  // namespace qlora
