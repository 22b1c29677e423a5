// Calls of Backend become calls of a table of kernels.

#include "kernels/cpu/cpu.h"

#include <cstdlib>

#include "core/base/check.h"
#include "kernels/cpu/best512.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/tasks.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace cpu {
namespace {

const float* f32(const void* p) {
  return static_cast<const float*>(p);
}
float* f32(void* p) {
  return static_cast<float*>(p);
}

// The fast loops read stored operands (args_matmul.h) where products have bf16 operands, and in the exact
// class.
void check_x(DType x_type, Operands operands, Numerics numerics) {
  QLORA_CHECK(x_type != DType::bf16 || (is_bf16(operands) && numerics == Numerics::exact), failure,
              "a product reads x in bf16 only as bf16 operands of the exact class");
}

class Cpu final : public Reference {
 public:
  explicit Cpu(const Kernels& kernels) : kernels_(kernels) {}
  std::string_view name() const override { return kernels_.name; }
  size_t scratch_bytes() const override { return Reference::scratch_bytes() + cpu::scratch_bytes(); }

  void gemm(const Gemm& a) override {
    if (a.type != DType::f32) return Reference::gemm(a);
    check_x(a.x_type, a.operands, Numerics::exact);
    const bool bf16 = a.w_type == DType::bf16;
    const bool stored = a.x_type == DType::bf16;
    product(a.operands)({.layout = a.layout,
                         .x = stored ? nullptr : f32(a.x),
                         .x_bf16 = stored ? static_cast<const uint16_t*>(a.x) : nullptr,
                         .dense = bf16 ? nullptr : f32(a.w),
                         .dense_bf16 = bf16 ? static_cast<const uint16_t*>(a.w) : nullptr,
                         .y = f32(a.y),
                         .ldx = a.layout == Layout::tn ? a.m : a.k,
                         .ldw = a.layout == Layout::nt ? a.k : a.n,
                         .ldy = a.n,
                         .m = a.m,
                         .n = a.n,
                         .k = a.k,
                         .alpha = static_cast<float>(a.alpha),
                         .add = a.mode == Write::accumulate,
                         .x_once = true});
  }

  void qgemm(const QGemm& a) override {
    if (a.type != DType::f32 || a.w.format == Format::dense) return Reference::qgemm(a);
    check_x(a.x_type, a.operands, a.numerics);
    const bool forward = a.layout == Layout::nt;
    if (a.numerics == Numerics::decode && forward) {
      const DecodeTerm term{codes_of(a.w), f32(a.y)};
      if (kernels_.decode_rows({.x = f32(a.x),
                                .terms = &term,
                                .count = 1,
                                .rows = a.rows,
                                .add = a.mode == Write::accumulate}))
        return;
    }
    Codes room;
    GemmArgs g = product_with(a.layout, f32(a.x), a.w, room, f32(a.y), a.rows, a.mode == Write::accumulate);
    if (a.x_type == DType::bf16) {
      g.x_bf16 = static_cast<const uint16_t*>(a.x);
      g.x = nullptr;
    }
    g.x_once = true;
    product(a.operands)(g);
  }

  void linear(const Linear& a) override {
    check_x(a.x_type, a.operands, a.numerics);
    if (a.type != DType::f32 || !fuses(a)) return Reference::linear(a);
    cpu::linear(kernels_, a);
    add_biases(a);
  }
  // In the decode class all terms are one set of tasks.
  void base_products(const Linear& a) override {
    std::vector<DecodeTerm> terms;
    bool quantized = a.numerics == Numerics::decode && a.type == DType::f32;
    for (const LinearTerm& term : a.terms) {
      if (term.y == nullptr) continue;
      quantized = quantized && term.w.format != Format::dense;
      if (quantized) terms.push_back({codes_of(term.w), f32(term.y)});
    }
    if (quantized && kernels_.decode_rows({.x = f32(a.x),
                                           .terms = terms.data(),
                                           .count = static_cast<int64_t>(terms.size()),
                                           .rows = a.rows}))
      return;
    Reference::base_products(a);
  }
  // Of any number of rows: so all of them have the dropped elements of dx added in one way.
  void linear_backward(const LinearBackward& a) override {
    check_x(a.x_type, a.operands, Numerics::exact);
    if (a.type != DType::f32) return Reference::linear_backward(a);
    if (a.rows == 0 || a.terms.empty()) return;
    if (a.dx == nullptr || a.mode == Write::overwrite) return cpu::linear_backward(kernels_, a, f32(a.dx));
    // A destination that already holds something receives the finished sum once.
    const int64_t n = a.rows * a.terms[0].w.in;
    float* sum = f32(Reference::scratch(Scratch::sum, static_cast<size_t>(n) * sizeof(float)));
    cpu::linear_backward(kernels_, a, sum);
    add({.a = a.dx, .b = sum, .y = a.dx, .n = n, .type = a.type});
  }

  void dequantize(const Dequantize& a) override {
    if (a.w.format != Format::dense && a.type == DType::f32)
      kernels_.dequantize(codes_of(a.w), f32(a.dst));
    else if (a.w.format != Format::dense && a.type == DType::bf16)
      kernels_.dequantize_bf16(codes_of(a.w), static_cast<uint16_t*>(a.dst));
    else
      Reference::dequantize(a);
  }

  void attention(const Attention& a) override {
    if (a.type != DType::f32) return Reference::attention(a);
    cpu::attention_of(kernels_, a.operands)(a, a.sequences.data(), static_cast<int64_t>(a.sequences.size()));
  }
  void attention_backward(const AttentionBackward& a) override {
    const Attention& f = a.forward;
    if (f.type != DType::f32) return Reference::attention_backward(a);
    cpu::attention_backward_of(kernels_, f.operands)(a, f.sequences.data(),
                                                     static_cast<int64_t>(f.sequences.size()));
  }

  void rms_norm(const RmsNorm& a) override {
    a.type == DType::f32 ? kernels_.rms_norm(a) : Reference::rms_norm(a);
  }
  void rms_norm_backward(const RmsNormBackward& a) override {
    a.type == DType::f32 ? kernels_.rms_norm_backward(a) : Reference::rms_norm_backward(a);
  }
  void layer_norm(const LayerNorm& a) override {
    a.type == DType::f32 ? kernels_.layer_norm(a) : Reference::layer_norm(a);
  }
  void layer_norm_backward(const LayerNormBackward& a) override {
    a.type == DType::f32 ? kernels_.layer_norm_backward(a) : Reference::layer_norm_backward(a);
  }
  void activate(const Activate& a) override {
    a.type == DType::f32 ? kernels_.activate(a) : Reference::activate(a);
  }
  void activate_backward(const ActivateBackward& a) override {
    a.type == DType::f32 ? kernels_.activate_backward(a) : Reference::activate_backward(a);
  }
  void rope(const Rope& a) override { a.type == DType::f32 ? kernels_.rope(a) : Reference::rope(a); }
  void copy_columns(const CopyColumns& a) override {
    a.type == DType::f32 ? kernels_.copy_columns(a) : Reference::copy_columns(a);
  }
  void cross_entropy(const CrossEntropy& a) override {
    a.type == DType::f32 ? kernels_.cross_entropy(a) : Reference::cross_entropy(a);
  }
  void softcap(const Softcap& a) override {
    a.type == DType::f32 ? kernels_.softcap(a) : Reference::softcap(a);
  }

 protected:
  void drop_rows(const DropRows& a) override {
    if (a.type != DType::f32 || a.kept != nullptr) return Reference::drop_rows(a);
    kernels_.drop_rows({.x = f32(a.x),
                        .y = f32(a.y),
                        .rows = a.rows,
                        .cols = a.cols,
                        .keys = a.keys,
                        .key = a.dropout.key,
                        .step = a.dropout.step,
                        .p = a.dropout.p,
                        .factor = a.factor,
                        .add = a.mode == Write::accumulate});
  }

 private:
  void (*product(Operands operands) const)(const cpu::GemmArgs&) { return cpu::gemm_of(kernels_, operands); }

  const Kernels& kernels_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu(const Kernels& kernels) {
  return std::make_unique<Cpu>(kernels);
}

const Kernels* best_kernels() {
  const char* chosen = std::getenv("QLORA_BACKEND");
  const std::string_view allowed = chosen == nullptr ? "" : chosen;
  if (allowed == "reference" || !cpu_has_avx2()) return nullptr;
  if (allowed == "avx2" || !cpu_has_avx512()) return &avx2_kernels();
  return &best_avx512_kernels();
}

}  // namespace cpu

// The tables are built by code of their own instruction set: asked for only where it runs.
std::unique_ptr<Backend> make_avx2() {
  return cpu_has_avx2() ? cpu::make_cpu(cpu::avx2_kernels()) : nullptr;
}

std::unique_ptr<Backend> make_avx512() {
  if (!cpu_has_avx512()) return nullptr;
  return cpu::make_cpu(cpu::best_avx512_kernels());
}

}  // namespace qlora
