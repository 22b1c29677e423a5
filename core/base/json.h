#pragma once
// JSON values. The heavy header nlohmann/json.hpp is included by .cpp files that need it, never by headers.

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>

namespace qlora {

using Json = nlohmann::json;  // objects sort their keys

// Canonical text: sorted keys, no spaces, UTF-8, shortest round-trip numbers. Equal values have equal text,
// except that 1 and 1.0 differ: types are the business of who builds the value.
std::string canonical(const Json&);

// Parses text from `origin` (a path, for messages). Throws Error(data) with origin, line, column and reason.
Json parse_json(std::string_view text, std::string_view origin);

}  // namespace qlora
