#include "core/text/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include "core/base/check.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

UChar32 icu(char32_t c) {
  return static_cast<UChar32>(c);
}

const icu::Normalizer2& normalizer(NormalForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* found = nullptr;
  switch (form) {
    case NormalForm::nfc:
      found = icu::Normalizer2::getNFCInstance(status);
      break;
    case NormalForm::nfd:
      found = icu::Normalizer2::getNFDInstance(status);
      break;
    case NormalForm::nfkc:
      found = icu::Normalizer2::getNFKCInstance(status);
      break;
    case NormalForm::nfkd:
      found = icu::Normalizer2::getNFKDInstance(status);
      break;
  }
  QLORA_CHECK(U_SUCCESS(status), failure, "ICU has no normalization data: {}", u_errorName(status));
  return *found;
}

bool is_ascii(std::string_view text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

}  // namespace

bool is_white_space(char32_t c) {
  return u_isUWhiteSpace(icu(c)) != 0;
}
bool is_numeric(char32_t c) {
  return (U_GET_GC_MASK(icu(c)) & U_GC_N_MASK) != 0;
}
bool is_punctuation(char32_t c) {
  bool ascii =
      (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  return ascii || (U_GET_GC_MASK(icu(c)) & U_GC_P_MASK) != 0;
}
bool is_combining_mark(char32_t c) {
  return (U_GET_GC_MASK(icu(c)) & U_GC_M_MASK) != 0;
}
bool is_word(char32_t c) {
  return (U_GET_GC_MASK(icu(c)) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         u_isUAlphabetic(icu(c)) != 0 || u_hasBinaryProperty(icu(c), UCHAR_JOIN_CONTROL) != 0;
}

std::string normalize(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);  // in every normal form already
  UErrorCode status = U_ZERO_ERROR;
  std::string out;
  icu::StringByteSink<std::string> sink(&out, static_cast<int32_t>(text.size()));
  normalizer(form).normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink,
                                 nullptr, status);
  QLORA_CHECK(U_SUCCESS(status), failure, "ICU cannot normalize a text: {}", u_errorName(status));
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    char32_t c = next_code_point(text, at);
    append_utf8(out, static_cast<char32_t>(u_tolower(icu(c))));
    if (c == 0x130) append_utf8(out, 0x307);  // the one letter whose lower case is two characters
  }
  return out;
}

char32_t titlecase(char32_t c) {
  return static_cast<char32_t>(u_totitle(icu(c)));
}

}  // namespace qlora
