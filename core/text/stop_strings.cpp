#include "core/text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace qlora {
namespace {

// The stop that ends first; npos when there is none.
struct Found {
  size_t begin = std::string_view::npos, end = std::string_view::npos;
};

Found first_stop(std::string_view text, std::span<const std::string> stops) {
  Found first;
  for (const std::string& stop : stops) {
    const size_t begin = text.find(stop);
    if (begin == std::string_view::npos) continue;
    const size_t end = begin + stop.size();
    if (end < first.end || (end == first.end && begin < first.begin)) first = {begin, end};
  }
  return first;
}

// Bytes at the end of `text` that some stop begins with.
size_t unsure_tail(std::string_view text, std::span<const std::string> stops) {
  size_t longest = 0;
  for (const std::string& stop : stops) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > longest; --n) {
      if (text.ends_with(std::string_view(stop).substr(0, n))) longest = n;
    }
  }
  return longest;
}

}  // namespace

std::string_view cut_at_stop(std::string_view text, std::span<const std::string> stops) {
  return text.substr(0, first_stop(text, stops).begin);
}

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) QLORA_CHECK(!stop.empty(), usage, "a stop string is empty");
}

std::string StopStrings::push(std::string_view piece) {
  if (stopped_) return {};
  held_ += piece;
  const Found found = first_stop(held_, stops_);
  stopped_ = found.begin != std::string_view::npos;
  const size_t sure = stopped_ ? found.begin : held_.size() - unsure_tail(held_, stops_);
  std::string shown = held_.substr(0, sure);
  held_ = stopped_ ? std::string() : held_.substr(sure);
  return shown;
}

std::string StopStrings::finish() {
  return std::exchange(held_, {});
}

}  // namespace qlora
