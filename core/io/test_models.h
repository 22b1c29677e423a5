#pragma once
// For tests only: the real models that goldens exist for.

#include "core/base/test_data.h"

namespace qlora::test {

// The model of goldens/smollm2, as `qlora model import` writes it. Use: if (missing(smollm2())) return;
inline std::filesystem::path smollm2() {
  return model_folder("SmolLM2-135M-Instruct");
}

}  // namespace qlora::test
