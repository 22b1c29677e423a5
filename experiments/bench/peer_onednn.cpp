// oneDNN's matmul primitive on plain row-major weights.

#include <cstdlib>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "core/base/check.h"
#include "experiments/bench/peers.h"

namespace qlora::bench {
namespace {

using Dims = dnnl::memory::dims;

class OneDnn final : public GemmPeer {
 public:
  explicit OneDnn(bool avx2) : avx2_(avx2) {
    // Once in a process, before the first primitive.
    if (avx2) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
  }

  std::string name() const override {
    const dnnl_version_t* v = dnnl_version();
    return fmt::format("oneDNN {}.{}.{}{}", v->major, v->minor, v->patch, avx2_ ? " held to AVX2" : "");
  }

  // Without AVX512-BF16 its bf16 products are emulated, which nobody should be compared with.
  bool can(DType type) const override {
    return type == DType::f32 || (type == DType::bf16 && !avx2_ && __builtin_cpu_supports("avx512bf16"));
  }

  std::function<void()> prepare(const DenseProduct& p) override {
    struct Prepared {
      dnnl::matmul matmul;
      dnnl::memory x, y, scratch;
      std::vector<dnnl::memory> w;
      size_t turn = 0;
    };
    const auto type = p.type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
    dnnl::memory::desc x({p.m, p.k}, type, Dims{p.k, 1}), y({p.m, p.n}, type, Dims{p.n, 1});
    dnnl::memory::desc w({p.k, p.n}, type, p.forward ? Dims{1, p.k} : Dims{p.n, 1});
    auto prepared = std::make_shared<Prepared>();
    prepared->matmul = dnnl::matmul({dnnl::matmul::desc(x, w, y), engine_});
    prepared->x = {x, engine_, const_cast<void*>(p.x)};
    prepared->y = {y, engine_, p.y};
    for (const void* data : p.w) prepared->w.emplace_back(w, engine_, const_cast<void*>(data));
    return [this, prepared] {
      dnnl::memory& weights = prepared->w[prepared->turn++ % prepared->w.size()];
      prepared->matmul.execute(
          stream_, {{DNNL_ARG_SRC, prepared->x}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, prepared->y}});
      stream_.wait();
    };
  }

 private:
  bool avx2_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
};

}  // namespace

std::unique_ptr<GemmPeer> make_onednn(bool avx2) {
  return std::make_unique<OneDnn>(avx2);
}

}  // namespace qlora::bench
