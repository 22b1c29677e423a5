#pragma once
// What cuBLAS reaches by itself: the ceiling of layers that go through it (device_bench.cpp).

#include <cstdint>

namespace qlora::cuda {

// Seconds of one product of bf16 matrices in place, [m, k] times [n, k]ᵀ or, with w_is_kn, [k, n], results
// f32: the median of five rounds, each a tenth of a second or, when it is to be `quick`, one call. 0 where
// there is no cuBLAS.
double time_of_product(int64_t m, int64_t n, int64_t k, bool w_is_kn, bool quick);

}  // namespace qlora::cuda
