#include "core/text/wrap.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/text/json_read.h"

namespace qlora {
namespace {

bool is_token_id(const Json& id) {
  if (id.is_number_unsigned()) return std::in_range<int32_t>(id.get<uint64_t>());
  return id.is_number_integer() && id >= 0 && std::in_range<int32_t>(id.get<int64_t>());
}

Wrap make_nothing(const Json&, std::string_view) {
  return {};
}

Wrap make_template(const Json& json, std::string_view origin) {
  Wrap wrap;
  int texts = 0;
  for (const Json& part : array_field(json, "single", origin)) {
    if (optional_field(part, "Sequence", origin) != nullptr) {
      ++texts;
      continue;
    }
    std::string name = string_field(field(part, "SpecialToken", origin), "id", origin);
    const Json& token = field(field(json, "special_tokens", origin), name, origin);
    for (const Json& id : array_field(token, "ids", origin)) {
      QLORA_CHECK(is_token_id(id), data,
                  "{}: special token `{}` of the template: expected token ids, found {}", origin, name,
                  id.dump());
      (texts == 0 ? wrap.before : wrap.after).push_back(id.get<int32_t>());
    }
  }
  QLORA_CHECK(texts == 1, data, "{}: the template for a single text has {} places for it, expected 1", origin,
              texts);
  return wrap;
}

int32_t pair_id(const Json& json, const char* key, std::string_view origin) {
  const Json& pair = array_field(json, key, origin);
  QLORA_CHECK(pair.size() == 2 && is_token_id(pair[1]), data, "{}: field `{}`: expected [token, id]", origin,
              key);
  return pair[1].get<int32_t>();
}

Wrap make_cls_sep(const Json& json, std::string_view origin) {
  return {{pair_id(json, "cls", origin)}, {pair_id(json, "sep", origin)}};
}

Wrap make_sequence(const Json& json, std::string_view origin) {
  Wrap wrap;  // every step wraps what the steps before it made
  for (const Json& step : array_field(json, "processors", origin)) {
    Wrap outer = make_wrap(&step, origin);
    wrap.before.insert(wrap.before.begin(), outer.before.begin(), outer.before.end());
    wrap.after.insert(wrap.after.end(), outer.after.begin(), outer.after.end());
  }
  return wrap;
}

struct Entry {
  const char* type;
  Wrap (*make)(const Json&, std::string_view origin);
};

constexpr Entry kProcessors[] = {
    {"TemplateProcessing", make_template}, {"ByteLevel", make_nothing}, {"RobertaProcessing", make_cls_sep},
    {"BertProcessing", make_cls_sep},      {"Sequence", make_sequence},
};

}  // namespace

Wrap make_wrap(const Json* json, std::string_view origin) {
  if (json == nullptr) return {};
  std::string type = string_field(*json, "type", origin);
  std::vector<std::string> known;
  for (const Entry& entry : kProcessors) {
    if (type == entry.type) return entry.make(*json, origin);
    known.emplace_back(entry.type);
  }
  fail(ErrorKind::data, "{}: {}", origin, unknown_name("post-processor", type, known));
}

}  // namespace qlora
