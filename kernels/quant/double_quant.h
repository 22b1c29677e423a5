#pragma once
// Double quantization (QLoRA): the absmax of the blocks are themselves stored as 8-bit codes. See WeightView
// for the way back, and kNestedBlock.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace qlora {

struct NestedScales {
  std::vector<uint8_t> codes;  // one per block, into signed_dynamic_map()
  std::vector<float> absmax;   // one per kNestedBlock codes
  float offset = 0;
};

// offset = f32(mean of absmax, summed in f64 in order) unless given; codes and nested absmax of f32(absmax -
// offset). REQUIRES: finite absmax.
NestedScales nest_scales(std::span<const float> absmax, std::optional<float> offset = {});

}  // namespace qlora
