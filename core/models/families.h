#pragma once
// The model families: what weights each has, and how it is made of them. One per file, listed in
// registry.cpp.

#include <memory>

#include "core/io/safetensors.h"
#include "core/models/model.h"
#include "core/models/weights.h"

namespace qlora {

std::vector<WeightSpec> llama_weights(const HfConfig&);
std::shared_ptr<const Model> make_llama(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

std::vector<WeightSpec> gemma2_weights(const HfConfig&);
std::shared_ptr<const Model> make_gemma2(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

std::vector<WeightSpec> gpt_neox_weights(const HfConfig&);
std::shared_ptr<const Model> make_gpt_neox(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

std::vector<WeightSpec> opt_weights(const HfConfig&);
std::shared_ptr<const Model> make_opt(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

std::vector<WeightSpec> gpt2_weights(const HfConfig&);
std::shared_ptr<const Model> make_gpt2(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

std::vector<WeightSpec> falcon_weights(const HfConfig&);
std::shared_ptr<const Model> make_falcon(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

}  // namespace qlora
