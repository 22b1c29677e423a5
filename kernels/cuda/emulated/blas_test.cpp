// cuBLAS: what the emulation takes for it computes what cuBLAS would, refuses what cuBLAS refuses, and a
// library that is not there is said to be so.

#include "kernels/cuda/blas.h"

#include <array>
#include <catch2/catch.hpp>
#include <limits>
#include <string>
#include <vector>

#include "core/base/half.h"
#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/chosen.h"
#include "kernels/cuda/lt.h"
#include "kernels/cuda/use.h"

using namespace qlora;
using namespace qlora::cuda;
using emulated::test::Chosen;
using qlora::test::Array;
using qlora::test::normals;

namespace {

template <class T>
class OnDevice {
 public:
  OnDevice(Stream& stream, const std::vector<T>& values) : stream_(stream), n_(values.size()) {
    p_ = static_cast<T*>(allocate_device(n_ * sizeof(T)));
    stream.copy_in(p_, values.data(), n_ * sizeof(T));
  }
  ~OnDevice() { release_device(p_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* get() const { return p_; }
  std::vector<T> values() const {
    std::vector<T> all(n_);
    stream_.copy_out(all.data(), p_, n_ * sizeof(T));
    return all;
  }

 private:
  Stream& stream_;
  size_t n_;
  T* p_;
};

std::vector<bf16> narrowed(const Array& values) {
  std::vector<bf16> all;
  for (double v : values) all.push_back(to_bf16(static_cast<float>(v)));
  return all;
}

double at(const std::vector<bf16>& m, int64_t i) {
  return static_cast<double>(to_float(m[static_cast<size_t>(i)]));
}

}  // namespace

TEST_CASE("cuBLAS: the emulated one computes products in both layouts, with pitches, alpha and beta") {
  constexpr int64_t m = 5, n = 7, k = 19, x_pitch = 24, y_pitch = 9;
  const char* const lt = GENERATE("on", "off");
  Chosen with_or_without("QLORA_CUBLASLT", lt);
  Stream stream;
  Blas blas(find_blas(), stream);
  const std::vector<bf16> x = narrowed(normals(1, m * x_pitch)), w = narrowed(normals(2, 32 * 24));
  for (bool w_is_kn : {false, true})
    for (bool adds : {false, true}) {
      INFO("cublasLt " << lt << ", w is " << (w_is_kn ? "[k, n]" : "[n, k]") << (adds ? ", added" : ""));
      const int64_t w_pitch = w_is_kn ? 8 : 24;
      // What is overwritten must not be read.
      const std::vector<float> before(m * y_pitch, adds ? 3.0f : std::numeric_limits<float>::quiet_NaN());
      OnDevice<bf16> dx(stream, x), dw(stream, w);
      OnDevice<float> dy(stream, before);
      blas.product({.x = dx.get(),
                    .x_pitch = x_pitch,
                    .w = dw.get(),
                    .w_pitch = w_pitch,
                    .w_is_kn = w_is_kn,
                    .y = dy.get(),
                    .y_pitch = y_pitch,
                    .m = m,
                    .n = n,
                    .k = k,
                    .alpha = 0.5f,
                    .adds = adds});
      const std::vector<float> y = dy.values();
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < y_pitch; ++j) {
          const auto got = static_cast<double>(y[static_cast<size_t>(i * y_pitch + j)]);
          if (j >= n) {
            CHECK((adds ? got == 3 : got != got));  // beside the result
            continue;
          }
          double sum = 0;
          for (int64_t p = 0; p < k; ++p)
            sum += at(x, i * x_pitch + p) * at(w, w_is_kn ? p * w_pitch + j : j * w_pitch + p);
          CHECK(got == Approx(0.5 * sum + (adds ? 3 : 0)).margin(1e-5));
        }
    }
}

TEST_CASE("cuBLAS: the emulated one refuses what cuBLAS refuses") {
  Stream stream;
  Blas blas(find_blas(), stream);
  OnDevice<bf16> x(stream, std::vector<bf16>(64));
  OnDevice<float> y(stream, std::vector<float>(64));
  BlasProduct p{.x = x.get(), .x_pitch = 8, .w = x.get(), .w_pitch = 8, .y = y.get(), .y_pitch = 8};
  p.m = p.n = p.k = 8;
  CHECK_NOTHROW(blas.product(p));
  for (int64_t BlasProduct::*pitch : {&BlasProduct::x_pitch, &BlasProduct::w_pitch, &BlasProduct::y_pitch}) {
    BlasProduct wrong = p;
    wrong.*pitch = 7;
    CHECK_THROWS_WITH(blas.product(wrong), Catch::Contains("8 x 8 x 8: status 7"));
  }
  BlasProduct huge = p;
  huge.m = int64_t{1} << 31;
  CHECK_THROWS_WITH(blas.product(huge), Catch::Contains("side of 2147483648"));
  // Whoever forgets the stream or the workspace would get cuBLAS's own.
  const BlasTable table = find_blas().table;
  void* handle = nullptr;
  REQUIRE(table.create(&handle) == 0);
  const float one = 1;
  CHECK_THROWS_WITH(
      table.gemm(handle, 1, 0, 8, 8, 8, &one, x.get(), 14, 8, x.get(), 14, 8, &one, y.get(), 0, 8, 68, -1),
      Catch::Contains("without a stream"));
  table.destroy(handle);
  stream.wait();
}

TEST_CASE("cublasLt: an algorithm is asked for once for products of the same sizes") {
  Chosen with_lt("QLORA_CUBLASLT", "on");
  Stream stream;
  Blas blas(find_blas(), stream);
  OnDevice<bf16> x(stream, narrowed(normals(3, 16 * 16)));
  OnDevice<float> y(stream, std::vector<float>(16 * 16));
  BlasProduct p{.x = x.get(), .x_pitch = 16, .w = x.get(), .w_pitch = 16, .y = y.get(), .y_pitch = 16};
  p.m = p.n = p.k = 8;
  // What comes of the next product: by cublasLt, by cublasGemmEx, asked.
  const auto use = [&](const BlasProduct& product) {
    const DeviceUse before = device_use();
    blas.product(product);
    const DeviceUse after = device_use();
    return std::array{after.by_lt - before.by_lt, after.by_gemm - before.by_gemm, after.asked - before.asked};
  };
  using Use = std::array<uint64_t, 3>;
  CHECK(use(p) == Use{1, 0, 1});
  BlasProduct other = p;
  other.alpha = 2, other.adds = true, other.x = x.get() + 32, other.y = y.get() + 8;
  CHECK(use(other) == Use{1, 0, 0});
  for (auto side : {&BlasProduct::m, &BlasProduct::n, &BlasProduct::k}) {
    BlasProduct shorter = p;
    shorter.*side = 7;
    CHECK(use(shorter) == Use{1, 0, 1});
    CHECK(use(shorter) == Use{1, 0, 0});
  }
  BlasProduct between = p;  // vectors
  between.x = x.get() + 1;
  CHECK(use(between) == Use{1, 0, 1});
  BlasProduct none = p;
  none.x_pitch = 9;
  CHECK(use(none) == Use{0, 1, 1});
  CHECK(use(none) == Use{0, 1, 0});
  stream.wait();
}

TEST_CASE("cublasLt: what it refuses to multiply after it named an algorithm goes by cublasGemmEx") {
  Chosen with_lt("QLORA_CUBLASLT", "on");
  Stream stream;
  FoundBlas found = find_blas();
  REQUIRE(found.lt);
  found.lt->multiply = [](void*, void*, const void*, const void*, void*, const void*, void*, const void*,
                          const void*, void*, void*, void*, const LtAlgorithm*, void*, size_t,
                          void*) { return kBlasUnsupported; };
  Blas blas(found, stream);
  OnDevice<bf16> x(stream, std::vector<bf16>(64, to_bf16(1.0f)));
  OnDevice<float> y(stream, std::vector<float>(64));
  BlasProduct p{.x = x.get(), .x_pitch = 8, .w = x.get(), .w_pitch = 8, .y = y.get(), .y_pitch = 8};
  p.m = p.n = p.k = 8;
  const DeviceUse before = device_use();
  for (int i = 0; i < 3; ++i) blas.product(p);
  const DeviceUse after = device_use();
  CHECK((after.by_gemm - before.by_gemm == 3 && after.by_lt == before.by_lt));
  CHECK(after.asked - before.asked == 1);
  CHECK(y.values() == std::vector<float>(64, 8.0f));
}

TEST_CASE("cublasLt: so many plans are kept, then all are forgotten") {
  Chosen with_lt("QLORA_CUBLASLT", "on");
  Stream stream;
  Blas blas(find_blas(), stream);
  OnDevice<bf16> x(stream, narrowed(normals(4, 8)));
  OnDevice<float> y(stream, std::vector<float>(1));
  BlasProduct p{.x = x.get(), .w = x.get(), .w_pitch = 8, .y = y.get(), .y_pitch = 1, .m = 1, .n = 1, .k = 8};
  const uint64_t before = device_use().asked;
  // The product whose x would have rows so far apart; of one row.
  const auto asked = [&](size_t plan) {
    p.x_pitch = static_cast<int64_t>(8 * (plan + 1));
    blas.product(p);
    return device_use().asked - before;
  };
  for (size_t plan = 0; plan < Lt::kMostPlans; ++plan) asked(plan);
  CHECK(asked(0) == Lt::kMostPlans);
  CHECK(asked(Lt::kMostPlans) == Lt::kMostPlans + 1);
  CHECK(asked(0) == Lt::kMostPlans + 2);
  CHECK(asked(Lt::kMostPlans) == Lt::kMostPlans + 2);
  stream.wait();
}

TEST_CASE("cublasLt: the emulated one refuses what cublasLt refuses, and what nobody may rely on") {
  Chosen with_lt("QLORA_CUBLASLT", "on");
  Stream stream;
  Scratch workspace;
  const FoundBlas found = find_blas();
  REQUIRE(found.lt);
  const LtTable& lt = *found.lt;
  OnDevice<bf16> x(stream, std::vector<bf16>(64));
  OnDevice<float> y(stream, std::vector<float>(64));
  void *handle = nullptr, *product = nullptr, *a = nullptr, *d = nullptr, *wanted = nullptr;
  lt.create(&handle);
  CHECK(lt.create_product(&product, kBlasSumsInF32, kBlasBf16) == kBlasUnsupported);
  lt.create_product(&product, kBlasSumsInF32, kBlasF32);
  lt.create_layout(&a, kBlasBf16, 8, 8, 8);
  lt.create_layout(&d, kBlasF32, 8, 8, 8);
  lt.create_preference(&wanted);
  std::array<LtAnswer, 4> answers;
  int answered = 0;
  const auto ask = [&] {
    return lt.heuristic(handle, product, a, a, d, d, wanted, 4, answers.data(), &answered);
  };
  const auto set = [&](auto setter, void* of, int attribute, auto value) {
    CHECK(setter(of, attribute, &value, sizeof value) == 0);
  };
  CHECK_THROWS_WITH(ask(), Catch::Contains("attribute 3 was not said"));
  set(lt.set_product, product, kLtOpA, int32_t{kBlasTransposed});
  set(lt.set_product, product, kLtOpB, int32_t{kBlasAsIs});
  const uint64_t little = 64, much = uint64_t{4} << 20;
  set(lt.set_preference, wanted, kLtWorkspace, little);
  CHECK(ask() == kBlasUnsupported);
  set(lt.set_preference, wanted, kLtWorkspace, much);
  for (int which : {kLtAlignmentA, kLtAlignmentB, kLtAlignmentC, kLtAlignmentD})
    set(lt.set_preference, wanted, which, uint32_t{16});
  REQUIRE(ask() == 0);
  REQUIRE(answered == 3);
  CHECK(answers[0].state != 0);
  const float one = 1;
  const auto multiply = [&](const LtAlgorithm& algorithm, size_t bytes, const bf16* at, void* on) {
    return lt.multiply(handle, product, &one, at, a, x.get(), a, &one, y.get(), d, y.get(), d, &algorithm,
                       workspace.bytes(much), bytes, on);
  };
  const LtAlgorithm good = answers[2].algorithm;
  CHECK(multiply(good, much, x.get(), stream.raw()) == 0);
  for (int bad : {0, 1}) CHECK(multiply(answers[bad].algorithm, much, x.get(), stream.raw()) == kBlasInvalid);
  CHECK(multiply(good, answers[2].workspace - 1, x.get(), stream.raw()) == kBlasInvalid);
  CHECK(multiply(good, much, x.get() + 1, stream.raw()) == kBlasInvalid);
  CHECK_THROWS_WITH(multiply(good, much, x.get(), nullptr), Catch::Contains("without a stream"));
  lt.destroy_layout(a);
  CHECK_THROWS_WITH(multiply(good, much, x.get(), stream.raw()), Catch::Contains("was destroyed"));
  CHECK_THROWS_WITH(lt.destroy_layout(product), Catch::Contains("a descriptor that is none"));
  lt.destroy_layout(d), lt.destroy_product(product), lt.destroy_preference(wanted), lt.destroy(handle);
  stream.wait();
}

TEST_CASE("cuBLAS: where there is none, one line says why") {
  {
    Chosen off("QLORA_CUBLAS", "off");
    CHECK_FALSE(find_blas().usable);
    CHECK(find_blas().text == "no cuBLAS (QLORA_CUBLAS=off)");
    CHECK(find_blas_library().text == find_blas().text);
  }
  {
    Chosen missing("QLORA_CUBLAS", "/nowhere/libcublas.so.13");
    const FoundBlas found = find_blas_library();
    CHECK_FALSE(found.usable);
    CHECK_THAT(found.text, Catch::StartsWith("no cuBLAS (QLORA_CUBLAS: /nowhere/libcublas.so.13: "));
  }
  {
    Chosen other("QLORA_CUBLAS", "libm.so.6");
    CHECK(find_blas_library().text == "no cuBLAS (libm.so.6 has no cublasCreate_v2)");
  }
  Chosen unset("QLORA_CUBLAS", "");
  const FoundBlas found = find_blas_library();
  INFO(found.text);  // this machine's, if it has one
  CHECK_THAT(found.text,
             Catch::StartsWith(found.usable ? "cuBLAS " : "no cuBLAS (libcublas.so.13, .12 and .11"));
  CHECK(found.text.find('\n') == std::string::npos);
}

TEST_CASE("cublasLt: the library that is here has every function and takes attributes as we give them") {
  Chosen unset("QLORA_CUBLAS", ""), with_lt("QLORA_CUBLASLT", "on");
  const FoundBlas found = find_blas_library();
  CHECK_THAT(found.text, !Catch::Contains(" has no "));  // a name that is misspelt
  if (!found.lt) {
    WARN("skipped: " << found.text);
    return;
  }
  CHECK_THAT(found.text, Catch::EndsWith(" with cublasLt"));
  // None of this needs a device.
  const LtTable& lt = *found.lt;
  void *product = nullptr, *layout = nullptr, *wanted = nullptr;
  REQUIRE(lt.create_product(&product, kBlasSumsInF32, kBlasF32) == 0);
  REQUIRE(lt.create_layout(&layout, kBlasBf16, 8, 16, 24) == 0);
  REQUIRE(lt.create_preference(&wanted) == 0);
  const int32_t op = kBlasTransposed;
  const uint32_t alignment = 16;
  const uint64_t bytes = 1 << 20;
  for (int which : {kLtOpA, kLtOpB}) {
    CHECK(lt.set_product(product, which, &op, sizeof op) == 0);
    CHECK(lt.set_product(product, which, &bytes, sizeof bytes) == kBlasInvalid);
  }
  CHECK(lt.set_preference(wanted, kLtWorkspace, &bytes, sizeof bytes) == 0);
  CHECK(lt.set_preference(wanted, kLtWorkspace, &alignment, sizeof alignment) == kBlasInvalid);
  for (int which : {kLtAlignmentA, kLtAlignmentB, kLtAlignmentC, kLtAlignmentD}) {
    CHECK(lt.set_preference(wanted, which, &alignment, sizeof alignment) == 0);
    CHECK(lt.set_preference(wanted, which, &bytes, sizeof bytes) == kBlasInvalid);
  }
  CHECK(lt.destroy_preference(wanted) == 0);
  CHECK(lt.destroy_layout(layout) == 0);
  CHECK(lt.destroy_product(product) == 0);
}

TEST_CASE("cublasLt: QLORA_CUBLASLT=off leaves it out") {
  Chosen off("QLORA_CUBLASLT", "off");
  const FoundBlas found = find_blas();
  CHECK((found.usable && !found.lt));
  CHECK(found.text == "cuBLAS, emulated, without cublasLt (QLORA_CUBLASLT=off)");
}
