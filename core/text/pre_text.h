#pragma once
// A text on its way through the pre-tokenizers: one buffer, cut into pieces that later become words of the
// model.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/pattern.h"

namespace qlora {

struct Piece {
  size_t begin, end;   // bytes of the buffer
  bool first = false;  // begins where the whole text began
};

struct PreText {
  std::string text;
  std::vector<Piece> pieces;
  std::string_view view(const Piece& p) const {
    return std::string_view(text).substr(p.begin, p.end - p.begin);
  }
};

// What becomes of a match when a piece is cut at it.
enum class SplitBehavior {
  removed,               // a-b-c -> a b c
  isolated,              // a-b-c -> a - b - c
  merged_with_previous,  // a-b-c -> a- b- c
  merged_with_next,      // a-b-c -> a -b -c
  contiguous,            // like isolated, but neighbouring matches stay together
};

// Cuts every piece at the matches of `pattern`; invert: at what lies between them. Empty pieces vanish.
void split(PreText& text, const Pattern& pattern, SplitBehavior behavior, bool invert = false);

// Replaces every piece by what `rewrite` appends for it.
void rewrite(PreText& text,
             const std::function<void(std::string_view piece, bool first, std::string& out)>& rewrite);

}  // namespace qlora
