#pragma once
// The alphabet of byte-level BPE (GPT-2): every byte is written as one printable character. The 188 printable
// bytes of Latin-1 stand for themselves; the other 68, in order, are U+0100 to U+0143.

#include <cstdint>
#include <string>
#include <string_view>

namespace qlora {

char32_t byte_to_character(uint8_t byte);
// The byte that a character stands for; -1 when it is not in the alphabet.
int character_to_byte(char32_t c);

// Appends the bytes of `text`, each as its character.
void append_byte_level(std::string& out, std::string_view text);
// Appends the bytes behind a token; a token with any character outside the alphabet stands for itself.
void append_from_byte_level(std::string& out, std::string_view token);

}  // namespace qlora
