#pragma once
// Building adapters, and their files in PEFT's layout.

#include <memory>
#include <string>
#include <vector>

#include "core/models/model.h"

namespace qlora {

struct LoraConfig {
  int64_t r = 64;
  double alpha = 16;
  float dropout = 0;
  // Names matched at the end, at a dot ("q_proj", "mlp.down_proj"), or "all-linear": every linear of the
  // blocks.
  std::vector<std::string> targets = {"all-linear"};
  bool use_rslora = false;
};

// The model's linears that `targets` names; a target that matches nothing is an Error(usage) with the nearest
// name.
std::vector<LinearInfo> match_targets(const Model&, const std::vector<std::string>& targets);

// A Kaiming-uniform (bound 1/sqrt(in), PEFT's default), B zero; a pure function of seed and linear name.
std::unique_ptr<Adapter> make_adapter(const Model&, const LoraConfig&, Memory&, DType, uint64_t seed);

// adapter_config.json + adapter_model.safetensors (f32), readable by PEFT. `base` is what
// base_model_name_or_path says.
void save_peft(const Path& folder, Adapter&, const LoraConfig&, const std::string& base);
struct LoadedAdapter {
  std::unique_ptr<Adapter> adapter;
  LoraConfig config;
};
// A tensor that is missing, of a wrong shape, or for an unknown linear is an Error(data); so is what is not
// supported (DoRA, modules_to_save, bias), by name.
LoadedAdapter load_peft(const Path& folder, const Model&, Memory&, DType);

}  // namespace qlora
