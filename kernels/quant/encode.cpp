#include "kernels/quant/encode.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/base/parallel.h"
#include "kernels/cpu/code_search.h"
#include "kernels/cpu/cpu.h"
#include "kernels/quant/tables.h"

namespace qlora {
namespace {

// Max |w| by the integer order of the bits, in which infinity and NaN come last.
float find_absmax(const float* w, int64_t n) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::bit_cast<int32_t>(w[i]) & 0x7fffffff);
  return std::bit_cast<float>(largest);
}

template <class F>
void encode_block(const float* w, int64_t n, float absmax, uint8_t* codes) {
  constexpr int64_t kChunk = 64;  // even; a small buffer, so that the first loop vectorizes
  uint8_t buffer[kChunk];
  const float inverse = absmax == 0 ? 0.0f : 1.0f / absmax;
  for (int64_t i = 0; i < n; i += kChunk) {
    int64_t m = std::min(kChunk, n - i);
    for (int64_t j = 0; j < m; ++j) buffer[j] = static_cast<uint8_t>(F::encode(w[i + j] * inverse));
    if constexpr (F::kBits == 8) {
      codes = std::copy_n(buffer, m, codes);
      continue;
    }
    if (m % 2 != 0) buffer[m] = static_cast<uint8_t>(F::encode(0.0f));
    for (int64_t j = 0; j < m; j += 2) *codes++ = static_cast<uint8_t>((buffer[j] << 4) | buffer[j + 1]);
  }
}

}  // namespace

void encode_plain(Format format, std::span<const float> weights, int64_t block, uint8_t* codes,
                  float* absmax) {
  const auto n = static_cast<int64_t>(weights.size());
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 14) / block);
  with_format(format, [&]<class F>(F) {
    parallel_for(block_count(n, block), grain, [&](int64_t lo, int64_t hi) {
      for (int64_t b = lo; b < hi; ++b) {
        const float* w = weights.data() + b * block;
        int64_t length = std::min(block, n - b * block);
        float largest = find_absmax(w, length);
        if (largest < std::numeric_limits<float>::min()) largest = 0;
        absmax[b] = largest;
        encode_block<F>(w, length, largest, codes + packed_bytes(format, b * block));
      }
    });
  });
}

void encode(Format format, std::span<const float> weights, int64_t block, uint8_t* codes, float* absmax) {
  const cpu::Kernels* kernels = cpu::best_kernels();
  if (kernels == nullptr || !cpu::code_search(format).usable)
    return encode_plain(format, weights, block, codes, absmax);
  kernels->encode({.search = &cpu::code_search(format),
                   .weights = weights.data(),
                   .n = static_cast<int64_t>(weights.size()),
                   .block = block,
                   .codes = codes,
                   .absmax = absmax});
}

}  // namespace qlora
