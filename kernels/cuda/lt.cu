// Plans of products by cublasLt, for CUDA and for the emulation.

#include "kernels/cuda/lt.h"

#include <algorithm>
#include <array>

#include "kernels/cuda/blas_status.h"
#include "kernels/cuda/use.h"

namespace qlora::cuda {
namespace {

constexpr int kAnswers = 8;

template <class What>
void check(int status, const What& what) {
  check_blas(status, kCublasLt, what);
}

// cublasGemmEx computes it then, or says what is wrong with it.
bool refuses(int status) {
  return status == kBlasUnsupported || status == kBlasInvalid;
}

// Whole vectors are 16 bytes. More is not told, so that bits do not depend on where an arena has room.
uint32_t alignment_of(const void* p) {
  constexpr uintptr_t kMost = 16;
  const uintptr_t bits = reinterpret_cast<uintptr_t>(p) | kMost;
  return static_cast<uint32_t>(bits & -bits);
}

// A descriptor of the library's; `create` takes where its address goes, then the rest.
template <class Create, class... A>
std::unique_ptr<void, int (*)(void*)> made(Create create, int (*destroy)(void*), A... arguments) {
  void* p = nullptr;
  check(create(&p, arguments...), [] { return "no descriptor"; });
  return {p, destroy};
}

template <class T>
void set(int (*setter)(void*, int, const void*, size_t), void* descriptor, int attribute, T value) {
  check(setter(descriptor, attribute, &value, sizeof(T)),
        [&] { return "attribute " + std::to_string(attribute); });
}

}  // namespace

Lt::Lt(const LtTable& table, void* workspace, size_t bytes)
    : table_(table), workspace_(workspace), bytes_(bytes) {
  check(table_.create(&handle_), [] { return "no handle"; });
}

Lt::~Lt() {
  plans_.clear();
  table_.destroy(handle_);
}

bool Lt::product(const BlasProduct& p, void* stream) {
  Plan& plan = plan_of(sizes_of(p));
  if (!plan.usable) return false;
  const float beta = p.adds ? 1.0f : 0.0f;
  const int status =
      table_.multiply(handle_, plan.product.get(), &p.alpha, p.w, plan.w.get(), p.x, plan.x.get(), &beta, p.y,
                      plan.y.get(), p.y, plan.y.get(), &plan.algorithm, workspace_, bytes_, stream);
  if (refuses(status)) return plan.usable = false;
  check(status, [&] { return describe(p); });
  return true;
}

Lt::Sizes Lt::sizes_of(const BlasProduct& p) {
  return {p.m,
          p.n,
          p.k,
          p.x_pitch,
          p.w_pitch,
          p.y_pitch,
          p.x_is_km,
          p.w_is_kn,
          alignment_of(p.x),
          alignment_of(p.w),
          alignment_of(p.y)};
}

Lt::Plan& Lt::plan_of(const Sizes& s) {
  if (const auto known = plans_.find(s); known != plans_.end()) return known->second;
  if (plans_.size() == kMostPlans) plans_.clear();
  return plans_.emplace(s, make_plan(s)).first->second;
}

// What is row-major here is its transpose there: yᵀ[n, m] = w xᵀ.
Lt::Plan Lt::make_plan(const Sizes& s) {
  Plan plan{.product = made(table_.create_product, table_.destroy_product, kBlasSumsInF32, kBlasF32),
            .w = s.w_is_kn ? layout(s.n, s.k, kBlasBf16, s.w_pitch) : layout(s.k, s.n, kBlasBf16, s.w_pitch),
            .x = s.x_is_km ? layout(s.m, s.k, kBlasBf16, s.x_pitch) : layout(s.k, s.m, kBlasBf16, s.x_pitch),
            .y = layout(s.n, s.m, kBlasF32, s.y_pitch)};
  set<int32_t>(table_.set_product, plan.product.get(), kLtOpA, s.w_is_kn ? kBlasAsIs : kBlasTransposed);
  set<int32_t>(table_.set_product, plan.product.get(), kLtOpB, s.x_is_km ? kBlasTransposed : kBlasAsIs);
  std::array<LtAnswer, kAnswers> answers;
  int answered = 0;
  ++used().asked;
  const int status = table_.heuristic(handle_, plan.product.get(), plan.w.get(), plan.x.get(), plan.y.get(),
                                      plan.y.get(), preference(s).get(), kAnswers, answers.data(), &answered);
  if (refuses(status)) return {};
  check(status, [] { return "choosing an algorithm"; });
  const auto end = answers.begin() + answered;
  const auto first = std::find_if(answers.begin(), end, [&](const LtAnswer& answer) {
    return answer.state == 0 && answer.workspace <= bytes_;
  });
  if (first == end) return {};
  plan.usable = true;
  plan.algorithm = first->algorithm;
  return plan;
}

Lt::Descriptor Lt::layout(int64_t rows, int64_t columns, int type, int64_t pitch) const {
  return made(table_.create_layout, table_.destroy_layout, type, static_cast<uint64_t>(rows),
              static_cast<uint64_t>(columns), pitch);
}

Lt::Descriptor Lt::preference(const Sizes& s) const {
  Descriptor p = made(table_.create_preference, table_.destroy_preference);
  set<uint64_t>(table_.set_preference, p.get(), kLtWorkspace, bytes_);
  set(table_.set_preference, p.get(), kLtAlignmentA, s.w_alignment);
  set(table_.set_preference, p.get(), kLtAlignmentB, s.x_alignment);
  set(table_.set_preference, p.get(), kLtAlignmentC, s.y_alignment);
  set(table_.set_preference, p.get(), kLtAlignmentD, s.y_alignment);
  return p;
}

}  // namespace qlora::cuda
