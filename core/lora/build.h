#pragma once
// Pieces that making and loading adapters share.

#include <span>
#include <string>
#include <string_view>

#include "core/lora/lora.h"

namespace qlora {

// One pair on the device; empty spans are zeros. Values: a [r, in], b [out, r].
Lora make_lora(const LinearInfo&, const LoraConfig&, Memory&, DType, std::span<const float> a,
               std::span<const float> b);

// PEFT's rule: a target names a linear when it is the whole name, or its end after a dot; "all-linear" (or
// "all") names every one.
bool target_matches(std::string_view target, std::string_view linear);

// Throws Error(usage) naming the key.
void check_lora_config(const LoraConfig&);

// PEFT's name of a pair's part in adapter_model.safetensors; `part` is "lora_A" or "lora_B".
inline std::string peft_name(const std::string& linear, const char* part) {
  return "base_model.model." + linear + "." + part + ".weight";
}

}  // namespace qlora
