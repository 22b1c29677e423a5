#pragma once
// The `post_processor` of a tokenizer.json, as far as one text (not a pair) is concerned: ids put around it.

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/json.h"

namespace qlora {

struct Wrap {
  std::vector<int32_t> before, after;
};

// null gives nothing around. Knows TemplateProcessing, ByteLevel, RobertaProcessing, BertProcessing,
// Sequence. Throws Error(data) naming `origin` for any other type, and for a template without exactly one
// place for the text.
Wrap make_wrap(const Json* json, std::string_view origin);

}  // namespace qlora
