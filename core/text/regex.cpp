#include "core/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/base/check.h"

namespace qlora {
namespace {

// White_Space, and \w of UTS 18 without Join_Control; the insides of a bracket.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9})"
                                   R"(\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kSameEscapes = "pPrntfvdDbBxAz";  // letters that mean the same to both engines

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view origin) : in_(pattern), origin_(origin) {}

  std::string run() {
    while (at_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::data, "{}: the regular expression `{}` uses {}, which is not supported", origin_, in_,
         what);
  }
  char peek(size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  void step() {
    char c = in_[at_];
    if (c == '\\') return escape();
    if (!in_set_ && c == '[') return open_set();
    if (!in_set_ && c == '}' && peek(1) == '+' && counted()) refuse("`{n,m}+`");
    if (in_set_) {
      if (c == '[' && peek(1) != ':') refuse("a set inside a set");
      if (c == '[') return posix_class();
      if (c == '&' && peek(1) == '&') refuse("`&&` inside a set");
      if (c == ']') in_set_ = false;
    }
    copy(1);
  }

  void copy(size_t n) {
    out_.append(in_.substr(at_, n));
    at_ += n;
  }

  // A `]` that comes first is a member of the set.
  void open_set() {
    in_set_ = true;
    copy(peek(1) == '^' ? 2 : 1);
    if (peek(0) == ']') {
      out_ += "\\]";
      ++at_;
    }
  }

  void posix_class() {
    size_t end = in_.find(":]", at_);
    if (end == std::string_view::npos) refuse("an open [:class");
    copy(end + 2 - at_);
  }

  bool counted() const {
    size_t open = in_.rfind('{', at_);
    if (open == std::string_view::npos || open + 1 == at_) return false;
    return in_.substr(open + 1, at_ - open - 1).find_first_not_of("0123456789,") == std::string_view::npos;
  }

  void escape() {
    char c = peek(1);
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == '\0') refuse("a backslash at its end");
    if (c == 's' || c == 'w') return append_class(c == 's' ? kSpace : kWord, false);
    if (c == 'S' || c == 'W') {
      if (in_set_) refuse("\\S or \\W inside a set");
      return append_class(c == 'S' ? kSpace : kWord, true);
    }
    if (letter && kSameEscapes.find(c) == std::string_view::npos) refuse(std::string("\\") + c);
    copy(2);
  }

  void append_class(std::string_view members, bool negated) {
    if (in_set_) {
      out_ += members;
    } else {
      out_ += negated ? "[^" : "[";
      out_ += members;
      out_ += ']';
    }
    at_ += 2;
  }

  std::string_view in_, origin_;
  std::string out_;
  size_t at_ = 0;
  bool in_set_ = false;
};

std::string message_of(int error) {
  PCRE2_UCHAR text[160];
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

struct FreeCode {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};

}  // namespace

struct Regex::Impl {
  std::unique_ptr<pcre2_code, FreeCode> code;
  std::string pattern;
};

std::string pcre2_pattern(std::string_view oniguruma, std::string_view origin) {
  return Translator(oniguruma, origin).run();
}

Regex::Regex(std::string_view pattern, std::string_view origin) : impl_(std::make_unique<Impl>()) {
  impl_->pattern = pattern;
  std::string translated = pcre2_pattern(pattern, origin);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK, &error,
                                  &offset, nullptr));
  QLORA_CHECK(impl_->code != nullptr, data, "{}: the regular expression `{}` does not compile: {}", origin,
              pattern, message_of(error));
  pcre2_jit_compile(impl_->code.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
}
Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const {
  std::unique_ptr<pcre2_match_data, FreeMatch> data(
      pcre2_match_data_create_from_pattern(impl_->code.get(), nullptr));
  auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
  for (size_t at = 0; at <= text.size();) {
    auto match = [&](uint32_t options) {
      return pcre2_match(impl_->code.get(), subject, text.size(), at, options | PCRE2_NO_UTF_CHECK,
                         data.get(), nullptr);
    };
    int rc = match(0);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match(PCRE2_NO_JIT);  // slower, with a heap for its stack
    if (rc == PCRE2_ERROR_NOMATCH) return;
    QLORA_CHECK(rc > 0, failure, "matching the regular expression `{}` failed: {}", impl_->pattern,
                message_of(rc));
    size_t begin = range[0], end = range[1];
    found(begin, end);
    at = end;
    if (begin == end) {
      for (++at; at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;) ++at;
    }
  }
}

}  // namespace qlora
