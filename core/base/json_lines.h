#pragma once
// Files of JSON lines: one value a line.

#include <string>
#include <string_view>

#include "core/base/json.h"

namespace qlora {

// Said of a line that a file ends with, without the end of a line, and that makes no sense.
inline constexpr std::string_view kLastLineCut =
    "the last line is cut off; get the whole file, or remove that line";

// Parses one line, which stands at `where` ("path:line"). `last`: the file ends with it, without the end of a
// line. Throws Error(data): kLastLineCut, or the reason why it is no JSON.
Json parse_json_line(std::string_view text, const std::string& where, bool last);

}  // namespace qlora
