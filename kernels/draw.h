#pragma once
// The arithmetic of drawing a token (Sample in args_sample.h), with the same bits on the host and on a
// device: steps of f32 that are each rounded by themselves, and whole numbers, whose sums depend on no order.

#include <bit>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define QLORA_HOST_AND_DEVICE __host__ __device__
#else
#define QLORA_HOST_AND_DEVICE
#endif

namespace qlora::draw {

// nvcc would fuse a product and a sum; the host's compiler is told not to (cmake/QloraLevel.cmake).
QLORA_HOST_AND_DEVICE inline float times(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
QLORA_HOST_AND_DEVICE inline float plus(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

// A logit with the penalty for tokens that were there before.
QLORA_HOST_AND_DEVICE inline float penalized(float x, float penalty) {
  return x < 0 ? times(x, penalty) : x / penalty;
}

// log2(e) / temperature, finite. REQUIRES: temperature > 0.
QLORA_HOST_AND_DEVICE inline float rate_of(double temperature) {
  const double rate = 1.4426950408889634 / temperature;
  const double most = std::numeric_limits<float>::max();
  return static_cast<float>(rate < most ? rate : most);
}

// The weight of the largest logit; a million of them fit into 64 bits.
inline constexpr int kWeightBits = 40;

// floor(2^40 exp((x - largest) / temperature)), the exponential to about 2^-22 of itself. REQUIRES: x <=
// largest, both not NaN, largest finite.
QLORA_HOST_AND_DEVICE inline uint64_t weight_of(float x, float largest, float rate) {
  const float t = times(plus(x, -largest), rate);
  if (!(t > -64.0f)) return 0;
  const int whole = static_cast<int>(plus(t, -0.5f));  // towards zero: to the nearest
  const float rest = plus(t, -static_cast<float>(whole));
  // 2^rest by its series, rest within [-1/2, 1/2].
  float power = 1.5403530e-4f;
  power = plus(times(power, rest), 1.3333558e-3f);
  power = plus(times(power, rest), 9.6181291e-3f);
  power = plus(times(power, rest), 5.5504109e-2f);
  power = plus(times(power, rest), 2.4022651e-1f);
  power = plus(times(power, rest), 6.9314718e-1f);
  power = plus(times(power, rest), 1.0f);
  const auto digits = static_cast<uint32_t>(times(power, 0x1p24f));  // exact
  const int shift = whole + kWeightBits - 24;
  if (shift >= 0) return uint64_t{digits} << shift;
  return shift > -32 ? digits >> -shift : 0;
}

// Larger for larger logits, the same for equal ones; and back.
QLORA_HOST_AND_DEVICE inline uint32_t order_of(float x) {
  const auto bits = std::bit_cast<uint32_t>(plus(x, 0.0f));  // -0 becomes 0
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
QLORA_HOST_AND_DEVICE inline float with_order(uint32_t order) {
  return std::bit_cast<float>((order >> 31) != 0 ? order & 0x7fffffffu : ~order);
}

// The least sum of weights that is top_p of `mass`; at least 1. REQUIRES: mass > 0.
QLORA_HOST_AND_DEVICE inline uint64_t wanted_mass(double top_p, uint64_t mass) {
  const double wanted = top_p * static_cast<double>(mass);
  auto whole = static_cast<uint64_t>(wanted);
  if (static_cast<double>(whole) < wanted || whole == 0) ++whole;
  return whole < mass ? whole : mass;
}

// A place in [0, mass), as likely as any other where `random` is uniform.
QLORA_HOST_AND_DEVICE inline uint64_t place_in(uint64_t random, uint64_t mass) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(random, mass);
#else
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(random) * mass >> 64);
#endif
}

}  // namespace qlora::draw
