#pragma once
// The `decoder` of a tokenizer.json: tokens back to text.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/json.h"

namespace qlora {

// Rewrites the list of tokens; the text is what is left, joined. Const and safe between threads.
using Decoder = std::function<std::vector<std::string>(std::vector<std::string>)>;

// null joins the tokens with spaces. Knows Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip,
// Metaspace, BPEDecoder. Throws Error(data) naming `origin` for any other type.
Decoder make_decoder(const Json* json, std::string_view origin);

}  // namespace qlora
