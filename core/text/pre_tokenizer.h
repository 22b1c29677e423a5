#pragma once
// The `pre_tokenizer` of a tokenizer.json: cuts a normalized text into the words that the model sees.

#include <functional>
#include <string_view>

#include "core/base/json.h"
#include "core/text/pre_text.h"

namespace qlora {

// Cuts and rewrites the pieces in place. Const and safe between threads.
using PreTokenizer = std::function<void(PreText&)>;

// null leaves the text whole. Knows Sequence, ByteLevel, Split, Digits, Metaspace, Whitespace,
// WhitespaceSplit, Punctuation. Throws Error(data) naming `origin` for any other type.
PreTokenizer make_pre_tokenizer(const Json* json, std::string_view origin);

// GPT-2's: an optional space in front, its regular expression, every byte as one character.
PreTokenizer byte_level_pre_tokenizer(bool add_prefix_space, bool use_regex);

}  // namespace qlora
