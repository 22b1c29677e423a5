#pragma once
// For golden tests of tokenizers: reading vectors, and loading tokenizers that this build supports.

#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/text/tokenizer.h"

namespace qlora::test {

inline Path tokenizer_data() {
  return test_data() / "02_tokenizers";
}

inline Json read_json(const Path& file) {
  return parse_json(read_file(file), file.string());
}

inline std::vector<Json> read_json_lines(const Path& file) {
  std::vector<Json> rows;
  std::istringstream lines(read_file(file));
  for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
  return rows;
}

// Null, with a visible line, when there is no such file or its kind is not supported yet.
inline std::shared_ptr<const Tokenizer> load_or_skip(const std::string& name, const Path& file) {
  static std::map<Path, std::shared_ptr<const Tokenizer>> loaded;
  if (auto found = loaded.find(file); found != loaded.end()) return found->second;
  if (!std::filesystem::exists(file)) {
    skip_part(name + ": no " + file.string());
    return nullptr;
  }
  if (file.extension() == ".txt") {
    skip_part(name + ": a WordPiece vocabulary, which is not supported yet");
    return nullptr;
  }
  try {
    return loaded[file] = load_tokenizer_file(file);
  } catch (const Error& e) {
    if (std::string(e.what()).find("not supported yet") == std::string::npos) throw;
    skip_part(name + ": " + e.what());
    return nullptr;
  }
}

}  // namespace qlora::test
