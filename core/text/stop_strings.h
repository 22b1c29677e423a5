#pragma once
// Strings that end an answer, looked for in text that arrives in pieces: a stop may lie across any number of
// tokens, and text is shown only once it can no longer be the beginning of one.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qlora {

// The text before the stop that is complete first (of several that end at one place, the longest); the whole
// text when there is none.
std::string_view cut_at_stop(std::string_view text, std::span<const std::string> stops);

// What cut_at_stop() gives for the joined pieces, piece by piece; it does not depend on where they are cut.
class StopStrings {
 public:
  // Throws Error(usage) for an empty stop. Without stops everything passes.
  explicit StopStrings(std::vector<std::string> stops);
  // More text; returns what is now certain to be before any stop. Nothing comes after a stop.
  std::string push(std::string_view piece);
  // What was held back, when no more text will come.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;  // might begin a stop
  bool stopped_ = false;
};

}  // namespace qlora
