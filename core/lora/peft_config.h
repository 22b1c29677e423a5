#pragma once
// adapter_config.json, both ways.

#include <string>
#include <vector>

#include "core/lora/lora.h"

namespace qlora {

// What a file says. Keys that this program does not know are accepted when they are null, false or empty
// (newer PEFT versions write many); a key that would change the adapter's result is an Error(data) that names
// it.
struct PeftConfig {
  LoraConfig lora;
  // False when the file's own rule for the targets is one that is not evaluated here (a regular expression,
  // chosen layers, PEFT's defaults): then the tensors in the file say what is adapted, and lora.targets is
  // empty.
  bool targets_listed = false;
};
PeftConfig read_peft_config(const Path& adapter_config_json);

// The text of the file, with the keys that every PEFT version reads; target modules are sorted.
std::string peft_config_text(const LoraConfig&, const std::vector<std::string>& target_modules,
                             const std::string& base, bool fan_in_fan_out);

}  // namespace qlora
