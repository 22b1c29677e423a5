#include "core/base/json_lines.h"

#include <nlohmann/json.hpp>

#include "core/base/check.h"

namespace qlora {

Json parse_json_line(std::string_view text, const std::string& where, bool last) {
  try {
    return parse_json(text, where);
  } catch (const Error& e) {
    QLORA_CHECK(!last, data, "{}: {}", where, kLastLineCut);
    const std::string reason = e.what();
    const size_t at = reason.find("not valid JSON");
    fail(ErrorKind::data, "{}: {}", where, at == std::string::npos ? reason : reason.substr(at));
  }
}

}  // namespace qlora
