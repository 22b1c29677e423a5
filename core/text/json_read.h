#pragma once
// Reading typed fields out of a tokenizer's JSON; errors name the file and the field.

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/json.h"

namespace qlora {

// The value of `key`. Throws Error(data) when `object` is not an object or lacks it.
const Json& field(const Json& object, const std::string& key, std::string_view origin);
// The same for a value that may be absent or null: then nullptr.
const Json* optional_field(const Json& object, const std::string& key, std::string_view origin);

std::string string_field(const Json& object, const std::string& key, std::string_view origin);
std::string string_field_or(const Json& object, const std::string& key, std::string fallback,
                            std::string_view origin);
int64_t int_field(const Json& object, const std::string& key, std::string_view origin);
int64_t int_field_or(const Json& object, const std::string& key, int64_t fallback, std::string_view origin);
bool bool_field_or(const Json& object, const std::string& key, bool fallback, std::string_view origin);
const Json& array_field(const Json& object, const std::string& key, std::string_view origin);

}  // namespace qlora
