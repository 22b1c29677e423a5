#pragma once
// For tests only: where the real models lie that the user has imported.

#include <filesystem>

#include "core/base/test_data.h"

namespace qlora::test {

// ${QLORA_HOME}/models/NAME, or .cache/qlora/models/NAME in the source tree. Use: if (missing(path)) return;
inline std::filesystem::path model_folder(const std::string& name) {
  const char* home = std::getenv("QLORA_HOME");
  const std::filesystem::path base = home != nullptr
                                         ? std::filesystem::path(home)
                                         : std::filesystem::path(QLORA_SOURCE_DIR) / ".cache/qlora";
  return base / "models" / name;
}

// The real model of goldens/smollm2, as `qlora model import` writes it.
inline std::filesystem::path smollm2() {
  return model_folder("SmolLM2-135M-Instruct");
}

}  // namespace qlora::test
