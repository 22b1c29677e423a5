#pragma once
// UTF-8: reading and writing code points, checking, and repairing.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace qlora {

// The code point at `at`, which moves past it. REQUIRES: valid UTF-8 and at < text.size().
inline char32_t next_code_point(std::string_view text, size_t& at) {
  auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
  char32_t first = byte(at++);
  if (first < 0x80) return first;
  int more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  char32_t c = first & (0x3Fu >> more);
  for (; more > 0; --more) c = (c << 6) | (byte(at++) & 0x3F);
  return c;
}

void append_utf8(std::string& out, char32_t c);
std::string to_utf8(char32_t c);

// Where the first byte stands that no valid UTF-8 has there; text.size() when all is valid. Surrogates and
// over-long forms are not valid.
size_t invalid_utf8(std::string_view text);

// The text with every ill-formed sequence replaced by U+FFFD, one per maximal subpart (Unicode 15,
// section 3.9).
std::string repair_utf8(std::string_view text);

}  // namespace qlora
