#include "core/text/byte_level.h"

#include <array>

#include "core/text/utf8.h"

namespace qlora {
namespace {

constexpr char32_t kFirstExtra = 0x100;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int, 0x144> byte{};
};

constexpr Alphabet make_alphabet() {
  Alphabet a;
  for (int& b : a.byte) b = -1;
  char32_t extra = kFirstExtra;
  for (int b = 0; b < 256; ++b) {
    char32_t c = stands_for_itself(b) ? static_cast<char32_t>(b) : extra++;
    a.character[static_cast<size_t>(b)] = c;
    a.byte[c] = b;
  }
  return a;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

char32_t byte_to_character(uint8_t byte) {
  return kAlphabet.character[byte];
}

int character_to_byte(char32_t c) {
  return c < kAlphabet.byte.size() ? kAlphabet.byte[c] : -1;
}

void append_byte_level(std::string& out, std::string_view text) {
  for (char c : text) append_utf8(out, byte_to_character(static_cast<uint8_t>(c)));
}

void append_from_byte_level(std::string& out, std::string_view token) {
  size_t before = out.size();
  for (size_t at = 0; at < token.size();) {
    int byte = character_to_byte(next_code_point(token, at));
    if (byte < 0) {
      out.resize(before);
      out.append(token);
      return;
    }
    out.push_back(static_cast<char>(static_cast<uint8_t>(byte)));
  }
}

}  // namespace qlora
