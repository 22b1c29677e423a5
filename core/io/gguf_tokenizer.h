#pragma once
// The tokenizer that a GGUF file carries in its metadata, as the files of a Hugging Face folder.

#include <string>

#include "core/io/gguf.h"

namespace qlora {

struct TokenizerFiles {
  std::string tokenizer;  // tokenizer.json: byte-level BPE with its pre-tokenizer and added tokens
  std::string config;     // tokenizer_config.json: special tokens and the chat template
};

// From tokenizer.ggml.*. Throws Error(data) for a tokenizer other than byte-level BPE, or a pre-tokenizer
// that is not in the table.
TokenizerFiles tokenizer_from_gguf(const GgufFile&);

}  // namespace qlora
