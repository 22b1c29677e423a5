#pragma once
// A text of our own that is built into the program, for a perplexity where none is at hand.

#include <string_view>

namespace qlora {

struct BundledText {
  std::string_view name;  // of its file in this folder
  std::string_view text;  // plain English about finetuning, some 1,700 words
};
BundledText bundled_text();

}  // namespace qlora
