#include "kernels/quant/decode.h"

#include <algorithm>

#include "kernels/quant/tables.h"

namespace qlora {
namespace {

template <class F>
void decode(const WeightView& w, int64_t begin, int64_t end, float* out) {
  const auto* codes = static_cast<const uint8_t*>(w.data);
  for (int64_t i = begin; i < end;) {
    int64_t block = i / w.block;
    float absmax = block_absmax(w, block);
    for (int64_t stop = std::min(end, (block + 1) * w.block); i < stop; ++i) {
      int code = F::kBits == 8 ? codes[i] : i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
      *out++ = F::level(code) * absmax;
    }
  }
}

}  // namespace

void decode_range(const WeightView& w, int64_t begin, int64_t end, float* out) {
  with_format(w.format, [&]<class F>(F) { decode<F>(w, begin, end, out); });
}

}  // namespace qlora
