#pragma once
// The value of an option: one of five types, decided by the option and never by how the value is written.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/json.h"
#include "experiments/yaml.h"

namespace qlora {

using OptionValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;

enum class ValueKind { boolean, integer, number, text, list };
// "a whole number", "yes or no", ...: for messages.
const char* name_of(ValueKind);

// Reads a scalar (or, for a list, a list of scalars or words with commas) as `kind`. Numbers may be written
// 2e-4, 1e5 or 1_000; an integer may be written 1e5. Throws Error(usage) at the node's place; `what` names
// the option.
OptionValue read_value(const YamlNode&, ValueKind kind, std::string_view what);

// As a user would write it: true, 0.0002, all-linear, [q_proj, v_proj].
std::string to_string(const OptionValue&);
Json to_json(const OptionValue&);
// REQUIRES: `json` was made by to_json from a value of this kind; throws Error(data) otherwise.
OptionValue option_value_from(const Json& json, ValueKind kind, std::string_view what);

}  // namespace qlora
