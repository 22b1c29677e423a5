#include "core/base/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/check.h"

namespace qlora {

std::string canonical(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::strict);
}

Json parse_json(std::string_view text, std::string_view origin) {
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& e) {
    size_t at = std::min(e.byte > 0 ? e.byte - 1 : 0, text.size());
    auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    size_t start = at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
    size_t column = at - (start == std::string_view::npos ? 0 : start + 1) + 1;
    std::string reason = e.what();
    if (size_t colon = reason.rfind(": "); colon != std::string::npos) reason = reason.substr(colon + 2);
    fail(ErrorKind::data, "{}:{}:{}: not valid JSON: {}", origin, line, column, reason);
  } catch (const Json::exception& e) {  // a number beyond a double, such as 1e999
    fail(ErrorKind::data, "{}: not valid JSON: {}", origin, e.what());
  }
}

}  // namespace qlora
