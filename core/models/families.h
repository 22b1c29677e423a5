#pragma once
// The makers of model families: one per file, listed in registry.cpp.

#include <memory>

#include "core/io/safetensors.h"
#include "core/models/model.h"

namespace qlora {

std::shared_ptr<const Model> make_llama(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

}  // namespace qlora
