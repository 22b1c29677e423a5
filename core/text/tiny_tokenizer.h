#pragma once
// For tests: a complete tiny tokenizer in a model folder.

#include <cstdint>

#include "core/base/file.h"

namespace qlora::test {

// Ids of its special tokens <|bos|>, <|eos|>, <|pad|>, <|im_start|>, <|im_end|>. The 256 bytes follow, then
// 27 merges.
struct TinyTokenizer {
  static constexpr int32_t kBos = 0, kEos = 1, kPad = 2, kStart = 3, kEnd = 4;
  static constexpr int32_t kFirstByte = 5;  // the token of byte b has the id kFirstByte + b
  static constexpr int64_t kVocabSize = 288;
};

// Writes tokenizer.json (byte-level BPE with GPT-2's regular expression) and tokenizer_config.json (the
// special tokens, a plain ChatML template) into a folder that exists. add_bos: the tokenizer's own file puts
// <|bos|> before a text.
void write_tiny_tokenizer(const Path& folder, bool add_bos = false);

}  // namespace qlora::test
