// OpenBLAS' sgemm.

#include <cblas.h>

#include <string>

#include "core/base/check.h"
#include "experiments/bench/peers.h"

namespace qlora::bench {
namespace {

class OpenBlas final : public GemmPeer {
 public:
  explicit OpenBlas(bool avx2) : avx2_(avx2) {}

  // The kernel that it chose (OPENBLAS_CORETYPE in the environment forces one, often a slow one).
  std::string name() const override {
    return fmt::format("OpenBLAS {} ({})", version(), openblas_get_corename());
  }

  // It cannot be held to AVX2 from inside a process; Haswell and Zen are its AVX2 kernels.
  bool can(DType type) const override {
    const std::string core = openblas_get_corename();
    return type == DType::f32 && (!avx2_ || core == "Zen" || core == "Haswell");
  }

  std::function<void()> prepare(const DenseProduct& p) override {
    return [p, turn = size_t{0}]() mutable {
      const auto* w = static_cast<const float*>(p.w[turn++ % p.w.size()]);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, p.forward ? CblasTrans : CblasNoTrans, static_cast<int>(p.m),
                  static_cast<int>(p.n), static_cast<int>(p.k), 1, static_cast<const float*>(p.x),
                  static_cast<int>(p.k), w, static_cast<int>(p.forward ? p.k : p.n), 0,
                  static_cast<float*>(p.y), static_cast<int>(p.n));
    };
  }

 private:
  // "OpenBLAS 0.3.21 NO_LAPACKE ..." without what follows the number.
  static std::string version() {
    std::string config = openblas_get_config();
    const size_t begin = config.find(' ') + 1;
    return config.substr(begin, config.find(' ', begin) - begin);
  }
  bool avx2_;
};

}  // namespace

std::unique_ptr<GemmPeer> make_openblas(bool avx2) {
  return std::make_unique<OpenBlas>(avx2);
}

}  // namespace qlora::bench
