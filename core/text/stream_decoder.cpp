#include "core/text/tokenizer.h"

namespace qlora {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD: what an incomplete character decodes to

}  // namespace

std::string StreamDecoder::push(int32_t id) {
  ids_.push_back(id);
  return advance(false);
}

std::string StreamDecoder::finish() {
  return advance(true);
}

// The shown ids stay in the window because a token's text may depend on its left neighbour (a leading space
// is dropped only at the front of a text).
std::string StreamDecoder::advance(bool to_the_end) {
  std::span<const int32_t> all = ids_;
  std::string before = tokenizer_.decode(all.subspan(0, shown_), true);
  std::string now = tokenizer_.decode(all, true);
  if (now.size() <= before.size()) return {};
  if (!to_the_end && now.ends_with(kReplacement)) return {};
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(shown_));
  shown_ = ids_.size();
  return now.substr(before.size());
}

}  // namespace qlora
