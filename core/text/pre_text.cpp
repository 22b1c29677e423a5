#include "core/text/pre_text.h"

#include <algorithm>

namespace qlora {
namespace {

struct Part {
  size_t begin, end;
  bool match;
};

// The piece as matches and what lies between them, in order.
void find_parts(std::string_view piece, const Pattern& pattern, bool invert, std::vector<Part>& parts) {
  parts.clear();
  size_t done = 0;
  pattern(piece, [&](size_t begin, size_t end) {
    if (done < begin) parts.push_back({done, begin, invert});
    parts.push_back({begin, end, !invert});
    done = end;
  });
  if (done < piece.size()) parts.push_back({done, piece.size(), invert});
}

// A single match joins the part before it; the second of two neighbouring matches stands alone.
void merge_with_previous(std::vector<Part>& parts) {
  std::vector<Part> merged;
  bool previous_match = false;
  for (const Part& part : parts) {
    if (part.match && !previous_match && !merged.empty()) {
      merged.back().end = part.end;
    } else {
      merged.push_back(part);
    }
    previous_match = part.match;
  }
  parts = std::move(merged);
}

void merge_with_next(std::vector<Part>& parts) {
  std::vector<Part> merged;  // from the right
  bool previous_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->match && !previous_match && !merged.empty()) {
      merged.back().begin = part->begin;
    } else {
      merged.push_back(*part);
    }
    previous_match = part->match;
  }
  std::reverse(merged.begin(), merged.end());
  parts = std::move(merged);
}

void merge_contiguous(std::vector<Part>& parts) {
  std::vector<Part> merged;
  for (const Part& part : parts) {
    if (!merged.empty() && merged.back().match == part.match) {
      merged.back().end = part.end;
    } else {
      merged.push_back(part);
    }
  }
  parts = std::move(merged);
}

}  // namespace

void split(PreText& text, const Pattern& pattern, SplitBehavior behavior, bool invert) {
  std::vector<Piece> pieces;
  std::vector<Part> parts;
  for (const Piece& piece : text.pieces) {
    find_parts(text.view(piece), pattern, invert, parts);
    if (behavior == SplitBehavior::removed) std::erase_if(parts, [](const Part& p) { return p.match; });
    if (behavior == SplitBehavior::merged_with_previous) merge_with_previous(parts);
    if (behavior == SplitBehavior::merged_with_next) merge_with_next(parts);
    if (behavior == SplitBehavior::contiguous) merge_contiguous(parts);
    for (const Part& part : parts) {
      if (part.begin == part.end) continue;
      pieces.push_back({piece.begin + part.begin, piece.begin + part.end, piece.first && part.begin == 0});
    }
  }
  text.pieces = std::move(pieces);
}

void rewrite(PreText& text, const std::function<void(std::string_view, bool, std::string&)>& rewrite) {
  std::string buffer;
  buffer.reserve(text.text.size() + text.text.size() / 2);
  std::vector<Piece> pieces;
  pieces.reserve(text.pieces.size());
  for (const Piece& piece : text.pieces) {
    size_t begin = buffer.size();
    rewrite(text.view(piece), piece.first, buffer);
    if (begin < buffer.size()) pieces.push_back({begin, buffer.size(), piece.first});
  }
  text.text = std::move(buffer);
  text.pieces = std::move(pieces);
}

}  // namespace qlora
