// cuBLAS: what the emulation takes for it computes what cuBLAS would, refuses what cuBLAS refuses, and a
// library that is not there is said to be so.

#include "kernels/cuda/blas.h"

#include <catch2/catch.hpp>
#include <limits>
#include <string>
#include <vector>

#include "core/base/half.h"
#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/chosen.h"

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
  Stream stream;
  Blas blas(find_blas(), stream);
  const std::vector<bf16> x = narrowed(normals(1, m * x_pitch)), w = narrowed(normals(2, 32 * 24));
  for (bool w_is_kn : {false, true})
    for (bool adds : {false, true}) {
      INFO("w is " << (w_is_kn ? "[k, n]" : "[n, k]") << (adds ? ", added" : ""));
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
