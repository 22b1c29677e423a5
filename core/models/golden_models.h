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

inline Json read_golden_json(const Path& path) {
  return parse_json(read_file(path), path.string());
}

// The folders of causal models whose family this build knows; the others are named as skipped. Without any, a
// test has compared nothing and counts as skipped.
inline std::vector<Path> golden_models() {
  std::vector<Path> folders;
  std::vector<std::string> known = model_types();
  for (const auto& entry : std::filesystem::directory_iterator(golden_models_path())) {
    if (!std::filesystem::exists(entry.path() / "inputs.json")) continue;
    std::string name = entry.path().filename().string();
    std::string type = read_model_type(entry.path() / "config.json");
    if (std::find(known.begin(), known.end(), type) == known.end()) {
      skip_part(name + ": model_type " + type + " is not registered");
    } else if (read_golden_json(entry.path() / "inputs.json").at("kind") != "causal") {
      skip_part(name + ": not a causal language model");
    } else {
      folders.push_back(entry.path());
    }
  }
  if (folders.empty()) {
    std::printf("SKIPPED: no model of a registered family in %s\n", golden_models_path().c_str());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

// How far logits in f32 may be from those in f64: five times as far as those of transformers are, whichever
// of its attentions is farther off (null: the model cannot run with it).
inline double f32_bound(const Json& expected) {
  const Json& checks = expected.at("checks");
  double deviation = 0;
  for (const char* attention : {"f32_eager", "f32_sdpa"})
    if (!checks.at(attention).is_null()) deviation = std::max(deviation, checks.at(attention).get<double>());
  return std::max(5e-5, 5 * deviation);
}

// Its config files: the new spelling, and the old one where there is one.
inline std::vector<std::string> golden_configs(const Path& golden) {
  std::vector<std::string> names = {"config.json"};
  if (std::filesystem::exists(golden / "config_v4.json")) names.emplace_back("config_v4.json");
  return names;
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

template <class A, class B>
double largest_difference(const std::vector<A>& a, const std::vector<B>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = worse(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst;
}

}  // namespace qlora::test
