#pragma once
// What tokenizer files search for in a text: a literal, a regular expression, or single characters of a kind.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "core/base/json.h"

namespace qlora {

using Found = std::function<void(size_t begin, size_t end)>;
// Reports every match in a text, left to right, not overlapping; byte offsets. Const and safe between
// threads.
using Pattern = std::function<void(std::string_view text, const Found& found)>;

Pattern literal_pattern(std::string literal);  // REQUIRES: not empty
Pattern regex_pattern(std::string_view regex, std::string_view origin);
Pattern character_pattern(bool (*kind)(char32_t));  // every such character is a match of its own

// From {"String": ...} or {"Regex": ...}. Throws Error(data).
Pattern pattern_from_json(const Json&, std::string_view origin);

std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content);

}  // namespace qlora
