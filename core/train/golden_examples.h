#pragma once
// For tests: the examples of the golden files.

#include <nlohmann/json.hpp>
#include <vector>

#include "core/base/json.h"
#include "core/text/example.h"

namespace qlora::test {

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
