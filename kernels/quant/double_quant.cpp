#include "kernels/quant/double_quant.h"

#include "kernels/quant/decode.h"
#include "kernels/quant/dynamic8.h"

namespace qlora {

NestedScales nest_scales(std::span<const float> absmax, std::optional<float> offset) {
  NestedScales out;
  if (absmax.empty()) return out;
  double sum = 0;
  for (float a : absmax) sum += a;
  out.offset = offset.value_or(static_cast<float>(sum / static_cast<double>(absmax.size())));
  std::vector<float> centred(absmax.begin(), absmax.end());
  for (float& a : centred) a -= out.offset;
  out.codes.resize(absmax.size());
  out.absmax.resize(static_cast<size_t>(block_count(static_cast<int64_t>(absmax.size()), kNestedBlock)));
  encode_dynamic8(centred, kNestedBlock, signed_dynamic_map(), out.codes.data(), out.absmax.data());
  return out;
}

}  // namespace qlora
