#pragma once
// Regular expressions as tokenizer files write them (Oniguruma's Ruby syntax), run by PCRE2 with Unicode
// properties.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace qlora {

class Regex {
 public:
  // Throws Error(data) naming `origin` when the pattern does not compile or uses a construct whose meaning
  // differs between the two engines (nested sets, `{n,m}+`, \h, ...).
  Regex(std::string_view pattern, std::string_view origin);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // Calls found(begin, end) for every match, left to right, not overlapping; byte offsets. An empty match
  // moves one character on. REQUIRES: valid UTF-8. Safe from several threads at once.
  void each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The pattern in PCRE2's syntax; \s and \w spelled out, because the engines disagree about a few characters.
std::string pcre2_pattern(std::string_view oniguruma, std::string_view origin);

}  // namespace qlora
