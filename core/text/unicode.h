#pragma once
// Unicode properties and normal forms (ICU), under the names that tokenizer files use.

#include <string>
#include <string_view>

namespace qlora {

bool is_white_space(char32_t c);     // the property White_Space
bool is_numeric(char32_t c);         // general categories Nd, Nl, No
bool is_punctuation(char32_t c);     // general categories P*, and ASCII punctuation
bool is_combining_mark(char32_t c);  // general categories M*
bool is_word(char32_t c);            // Alphabetic, M*, Nd, Pc, Join_Control: \w of UTS 18

enum class NormalForm { nfc, nfd, nfkc, nfkd };

// REQUIRES: valid UTF-8.
std::string normalize(std::string_view text, NormalForm form);

// Every character mapped alone (no final sigma rule), as tokenizer files mean it.
std::string lowercase(std::string_view text);
// The capital form of one character for the beginning of a word.
char32_t titlecase(char32_t c);

}  // namespace qlora
