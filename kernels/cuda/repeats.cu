#include "kernels/cuda/repeats.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/error.h"

namespace qlora::cuda {

uint64_t shape_of(std::span<const int64_t> sizes) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
  uint64_t shape = kOdd * (sizes.size() + 1);
  for (int64_t size : sizes) {
    shape = (shape ^ static_cast<uint64_t>(size)) * kOdd;
    shape ^= shape >> 32;
  }
  return shape;
}

std::optional<Graphs> graphs_asked() {
  const char* chosen = std::getenv("QLORA_CUDA_GRAPHS");
  if (chosen == nullptr || *chosen == '\0') return std::nullopt;
  if (std::string_view(chosen) == "on") return Graphs::always;
  if (std::string_view(chosen) == "off") return Graphs::never;
  throw Error(ErrorKind::usage, std::string("QLORA_CUDA_GRAPHS is `") + chosen +
                                    "`; it is on, off, or not set: graphs where they are faster");
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool Repeats::is_faster(const Section& s) const {
  if (graphs_ == Graphs::always) return true;
  if (s.plain > kBoundByLaunches * static_cast<double>(s.pieces.size())) return false;
  return s.held < kTries || s.at_once < s.plain;
}

bool Repeats::comes_again(int section) const {
  if (section == kNone) return false;
  const Section& s = sections_[static_cast<size_t>(section)];
  return s.seen >= 2 && s.pieces.size() >= kFewest && s.pieces.size() <= kMost && is_faster(s) &&
         std::none_of(s.pieces.begin(), s.pieces.end(),
                      [](const WorkPiece& p) { return p.kind == WorkKind::other; });
}

bool Repeats::next(WorkPiece piece) {
  if (graphs_ == Graphs::never) return false;
  const size_t place = now_.size();
  if (place == 0) began_ = seconds_();
  now_.push_back(piece);
  if (expected_ == kNone) return false;
  const std::vector<WorkPiece>& pieces = sections_[static_cast<size_t>(expected_)].pieces;
  if (place < pieces.size() && pieces[place] == piece) return some_held_ = true;
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
  if (graphs_ == Graphs::never || now_.empty()) return kNone;
  const bool whole =
      expected_ != kNone && sections_[static_cast<size_t>(expected_)].pieces.size() == now_.size();
  const int held = whole ? expected_ : kNone;
  const int place = place_of_now();
  Section& section = sections_[static_cast<size_t>(place)];
  ++section.seen;
  if (last_ != kNone) sections_[static_cast<size_t>(last_)].following = place;
  last_ = place;
  at_once_ = held != kNone;
  awaited_ = at_once_ || !some_held_ ? place : kNone;  // held back in part it has no time of either kind
  some_held_ = false;
  now_.clear();
  expected_ = comes_again(section.following) ? section.following : kNone;
  return held;
}

void Repeats::done() {
  if (awaited_ == kNone) return;
  Section& section = sections_[static_cast<size_t>(std::exchange(awaited_, kNone))];
  double& least = at_once_ ? section.at_once : section.plain;
  least = std::min(least, seconds_() - began_);
  section.held += at_once_ ? 1 : 0;
  expected_ = comes_again(section.following) ? section.following : kNone;
}

}  // namespace qlora::cuda
