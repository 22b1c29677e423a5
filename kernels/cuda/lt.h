#pragma once
// Products by cublasLt. Unlike cublasGemmEx it lets us choose once: a product's algorithm is asked for when
// the first of its sizes comes, for the workspace that there is, and kept. So its bits depend on its sizes,
// pitches and alignment alone, run to run; later ones cost the host no choosing; and stream and workspace are
// arguments of a call, not state of a handle.

#include <compare>
#include <map>
#include <memory>

#include "kernels/cuda/blas.h"

namespace qlora::cuda {

class Lt {
 public:
  // Packs of ragged lengths differ in their rows, and each number of rows is a plan, of half a KiB of the
  // host's memory or so. When so many are there all are forgotten.
  static constexpr size_t kMostPlans = 4096;

  // The workspace, on the device, 256-byte aligned, outlives this. Throws Error where cublasLt does not
  // start.
  Lt(const LtTable&, void* workspace, size_t bytes);
  ~Lt();
  Lt(const Lt&) = delete;
  Lt& operator=(const Lt&) = delete;

  // Makes it work of the stream; false, and nothing done, where the library has no algorithm for its like, or
  // refuses the one that it named.
  bool product(const BlasProduct&, void* stream);

 private:
  struct Sizes {
    int64_t m, n, k, x_pitch, w_pitch, y_pitch;
    bool x_is_km, w_is_kn;
    uint32_t x_alignment, w_alignment, y_alignment;
    auto operator<=>(const Sizes&) const = default;
  };
  using Descriptor = std::unique_ptr<void, int (*)(void*)>;
  struct Plan {
    bool usable = false;
    LtAlgorithm algorithm = {};
    Descriptor product{nullptr, nullptr}, w{nullptr, nullptr}, x{nullptr, nullptr}, y{nullptr, nullptr};
  };

  static Sizes sizes_of(const BlasProduct&);
  Plan& plan_of(const Sizes&);
  Plan make_plan(const Sizes&);
  Descriptor layout(int64_t rows, int64_t columns, int type, int64_t pitch) const;
  Descriptor preference(const Sizes&) const;

  LtTable table_;
  void* const workspace_;
  const size_t bytes_;
  void* handle_ = nullptr;
  std::map<Sizes, Plan> plans_;
};

}  // namespace qlora::cuda
