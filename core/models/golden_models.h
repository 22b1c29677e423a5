#pragma once
// For tests: the golden model folders (outside data), each with its config in the new and in the old
// spelling.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/io/safetensors.h"
#include "core/models/hf_config.h"
#include "core/models/model.h"

namespace qlora::test {

inline Path golden_models_path() {
  return goldens() / "models";
}

// The folders below golden_models_path() whose family this build knows; the others are named as skipped.
inline std::vector<Path> golden_models() {
  std::vector<Path> folders;
  std::vector<std::string> known = model_types();
  for (const auto& entry : std::filesystem::directory_iterator(golden_models_path())) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    std::string type = read_model_type(entry.path() / "config.json");
    if (std::find(known.begin(), known.end(), type) != known.end()) {
      folders.push_back(entry.path());
    } else {
      skip_part(entry.path().filename().string() + ": model_type " + type + " is not registered");
    }
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

inline Json read_golden_json(const Path& path) {
  return parse_json(read_file(path), path.string());
}

// A model folder made of a golden's weights and one of its configs ("config.json", "config_v4.json").
class GoldenFolder {
 public:
  GoldenFolder(const Path& golden, const std::string& config) {
    std::filesystem::copy_file(golden / config, folder_.path() / "config.json");
    std::filesystem::create_symlink(std::filesystem::absolute(golden / "model.safetensors"),
                                    folder_.path() / "model.safetensors");
  }
  const Path& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

// Available backends that compute in f32, best first.
inline std::vector<std::string> computing_backends() {
  std::vector<std::string> names;
  for (const BackendInfo& b : list_backends()) {
    if (b.available && b.name != "counting") names.push_back(b.name);
  }
  return names;
}

template <class A, class B>
double largest_difference(const std::vector<A>& a, const std::vector<B>& b) {
  if (a.size() != b.size()) return 1e300;
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = worse(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst;
}

}  // namespace qlora::test
