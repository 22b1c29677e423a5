#pragma once
// For tests: the tiny models under goldens/models whose family is registered.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/models/model.h"
#include "core/text/example.h"

namespace qlora::test {

inline Json read_json(const Path& path) {
  return parse_json(read_file(path), path.string());
}

// Folders of causal models that this build knows; says which it leaves out.
inline std::vector<Path> golden_models() {
  std::vector<Path> out;
  const std::vector<std::string> known = model_types();
  for (const auto& entry : std::filesystem::directory_iterator(goldens() / "models")) {
    const Path folder = entry.path();
    if (!std::filesystem::exists(folder / "inputs.json")) continue;
    std::string type = read_json(folder / "config.json").at("model_type");
    if (read_json(folder / "inputs.json").at("kind") == "causal" &&
        std::find(known.begin(), known.end(), type) != known.end())
      out.push_back(folder);
    else
      skip_part(folder.filename().string() + ": model_type " + type + " is not registered");
  }
  if (out.empty())
    std::printf("SKIPPED: no model of a registered family in %s\n", (goldens() / "models").c_str());
  std::sort(out.begin(), out.end());
  return out;
}

inline std::vector<TokenExample> golden_examples(const Json& rows) {
  std::vector<TokenExample> out;
  for (const Json& row : rows) {
    TokenExample e;
    e.ids = row.at("input_ids").get<std::vector<int32_t>>();
    e.labels = row.at("labels").get<std::vector<int32_t>>();
    out.push_back(std::move(e));
  }
  return out;
}

}  // namespace qlora::test
