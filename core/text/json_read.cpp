#include "core/text/json_read.h"

#include <nlohmann/json.hpp>

#include "core/base/check.h"

namespace qlora {
namespace {

void expect(bool right, const Json& value, const std::string& key, std::string_view expected,
            std::string_view origin) {
  QLORA_CHECK(right, data, "{}: field `{}`: expected {}, found {}", origin, key, expected, value.type_name());
}

}  // namespace

const Json* optional_field(const Json& object, const std::string& key, std::string_view origin) {
  QLORA_CHECK(object.is_object(), data, "{}: expected an object with a field `{}`, found {}", origin, key,
              object.type_name());
  auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const Json& field(const Json& object, const std::string& key, std::string_view origin) {
  const Json* found = optional_field(object, key, origin);
  QLORA_CHECK(found != nullptr, data, "{}: field `{}` is missing", origin, key);
  return *found;
}

std::string string_field(const Json& object, const std::string& key, std::string_view origin) {
  const Json& value = field(object, key, origin);
  expect(value.is_string(), value, key, "a string", origin);
  return value.get<std::string>();
}

std::string string_field_or(const Json& object, const std::string& key, std::string fallback,
                            std::string_view origin) {
  return optional_field(object, key, origin) == nullptr ? fallback : string_field(object, key, origin);
}

int64_t int_field(const Json& object, const std::string& key, std::string_view origin) {
  const Json& value = field(object, key, origin);
  expect(value.is_number_integer(), value, key, "an integer", origin);
  return value.get<int64_t>();
}

int64_t int_field_or(const Json& object, const std::string& key, int64_t fallback, std::string_view origin) {
  return optional_field(object, key, origin) == nullptr ? fallback : int_field(object, key, origin);
}

bool bool_field_or(const Json& object, const std::string& key, bool fallback, std::string_view origin) {
  const Json* value = optional_field(object, key, origin);
  if (value == nullptr) return fallback;
  expect(value->is_boolean(), *value, key, "true or false", origin);
  return value->get<bool>();
}

const Json& array_field(const Json& object, const std::string& key, std::string_view origin) {
  const Json& value = field(object, key, origin);
  expect(value.is_array(), value, key, "a list", origin);
  return value;
}

}  // namespace qlora
