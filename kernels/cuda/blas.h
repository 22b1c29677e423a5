#pragma once
// Products by cuBLAS: through its cublasLt where that is found and has an algorithm for them, else by
// cublasGemmEx.

#include "kernels/cuda/blas_table.h"
#include "kernels/cuda/runtime.h"

namespace qlora::cuda {

// The library's, or the emulation's; `off` without one in both.
FoundBlas find_blas();

// y[m, n] = alpha * x w, or added to y; rows of bf16 in, f32 out. Row-major, pitches in elements.
struct BlasProduct {
  const bf16* x = nullptr;  // [m, k], or with x_is_km [k, m]
  int64_t x_pitch = 0;
  bool x_is_km = false;
  const bf16* w = nullptr;  // [n, k], or with w_is_kn [k, n]
  int64_t w_pitch = 0;
  bool w_is_kn = false;
  float* y = nullptr;  // [m, n]
  int64_t y_pitch = 0;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  bool adds = false;
};

class Lt;

// Handles with the device's stream, which must outlive them, and a workspace of their own, so that a
// product's bits depend on its arguments alone.
class Blas {
 public:
  // Throws Error where cuBLAS, or a cublasLt that was found, does not start.
  Blas(const FoundBlas&, Stream&);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  // May be held back (Stream::call).
  void product(const BlasProduct&);

 private:
  void give(const BlasProduct&);
  void multiply(const BlasProduct&);

  BlasTable table_;
  Stream& stream_;
  void* handle_ = nullptr;
  Scratch workspace_;
  std::unique_ptr<Lt> lt_;
};

}  // namespace qlora::cuda
