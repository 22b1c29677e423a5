#include "kernels/cuda/repeats.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace qlora::cuda {

bool Repeats::comes_again(int section) const {
  if (section == kNone) return false;
  const Section& s = sections_[static_cast<size_t>(section)];
  return s.seen >= 2 && s.pieces.size() >= kFewest && s.pieces.size() <= kMost &&
         std::none_of(s.pieces.begin(), s.pieces.end(),
                      [](const WorkPiece& p) { return p.kind == WorkKind::other; });
}

bool Repeats::next(WorkPiece piece) {
  if (!on_) return false;
  const size_t place = now_.size();
  now_.push_back(piece);
  if (expected_ == kNone) return false;
  const std::vector<WorkPiece>& pieces = sections_[static_cast<size_t>(expected_)].pieces;
  if (place < pieces.size() && pieces[place] == piece) return true;
  expected_ = kNone;
  return false;
}

// The number of the section that has just ended, which may be a new one in the place of the oldest.
int Repeats::place_of_now() {
  for (size_t i = 0; i < sections_.size(); ++i)
    if (sections_[i].pieces == now_) return static_cast<int>(i);
  if (sections_.size() < kSections) {
    sections_.push_back({.pieces = now_});
    return static_cast<int>(sections_.size()) - 1;
  }
  const int place = std::exchange(oldest_, (oldest_ + 1) % kSections);
  sections_[static_cast<size_t>(place)] = {.pieces = now_};
  for (Section& s : sections_)
    if (s.following == place) s.following = kNone;
  return place;
}

int Repeats::end() {
  if (!on_ || now_.empty()) return kNone;
  const bool whole =
      expected_ != kNone && sections_[static_cast<size_t>(expected_)].pieces.size() == now_.size();
  const int held = whole ? expected_ : kNone;
  const int place = place_of_now();
  Section& section = sections_[static_cast<size_t>(place)];
  ++section.seen;
  if (last_ != kNone) sections_[static_cast<size_t>(last_)].following = place;
  last_ = place;
  now_.clear();
  expected_ = comes_again(section.following) ? section.following : kNone;
  return held;
}

bool graphs_are_on() {
  const char* chosen = std::getenv("QLORA_CUDA_GRAPHS");
  return chosen != nullptr && std::string_view(chosen) == "on";
}

}  // namespace qlora::cuda
