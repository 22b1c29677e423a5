#include "core/models/drafts.h"

#include <algorithm>
#include <utility>

namespace qlora {
namespace {

constexpr size_t kChains = 4096;
constexpr int kPlaces = 32;

// Of the record: what was counted so many guesses ago has this weight to their power, and what is usual
// counts as so many guesses.
constexpr double kKept = 0.95, kUsualCounts = 2;
double usual(size_t match) {
  const auto m = static_cast<double>(match);
  return m / (m + 2);
}

// Of the plan: what a row is taken to cost, in steps without drafts, before much is measured (two cores of
// an Intel Xeon, whole numbers without tiles), and how many measured rows that counts as.
constexpr double kRowCost = 0.25, kRowCounts = 2, kLeastRowCost = 0.02;
// A step's weight to the next one's, where it has drafts and where it has none.
constexpr double kDraftedKept = 0.95, kPlainKept = 0.98;
// A neighbour's load makes a step longer, and none makes it shorter.
constexpr double kLonger = 0.125, kShorter = 0.5;
// Steps with drafts, after which one without is measured anew.
constexpr int64_t kPlainAfter = 64;
constexpr double kMargin = 1.1;

size_t chain_of(int32_t first, int32_t second) {
  const uint64_t pair =
      static_cast<uint64_t>(static_cast<uint32_t>(first)) << 32 | static_cast<uint32_t>(second);
  return static_cast<size_t>(pair * 0x9e3779b97f4a7c15u >> 52);
}
static_assert(kChains == size_t{1} << 12);

}  // namespace

void DraftText::add(std::span<const int32_t> tokens) {
  if (latest_.empty()) latest_.assign(kChains, -1);
  for (int32_t token : tokens) {
    const auto at = static_cast<int32_t>(tokens_.size());
    int32_t before = -1;
    if (at > 0) before = std::exchange(latest_[chain_of(tokens_.back(), token)], at);
    tokens_.push_back(token);
    before_.push_back(before);
  }
}

Draft DraftText::guess(int64_t most) const {
  Draft draft;
  if (tokens_.empty() || most <= 0) return draft;
  const auto last = static_cast<int32_t>(tokens_.size()) - 1;
  int32_t from = 0;
  int places = 0;
  for (int32_t at = before_.back(); at >= 0 && places < kPlaces; at = before_[static_cast<size_t>(at)]) {
    ++places;
    int32_t match = 0;
    while (match < kLongestMatch && match <= at &&
           tokens_[static_cast<size_t>(at - match)] == tokens_[static_cast<size_t>(last - match)])
      ++match;
    if (match < kShortestMatch || match <= draft.match) continue;  // the pairs of a chain may differ
    draft.match = match;
    from = at + 1;
    if (match == kLongestMatch) break;
  }
  if (draft.match == 0) return draft;
  for (int64_t i = 0; i < most; ++i) {
    const auto at = static_cast<size_t>(from + i);
    draft.tokens.push_back(at < tokens_.size() ? tokens_[at] : draft.tokens[at - tokens_.size()]);
  }
  return draft;
}

size_t DraftRecord::count_of(const Draft& draft, size_t place) {
  return std::min<size_t>(static_cast<size_t>(draft.match) + place, kLongestMatch);
}

double DraftRecord::probability(const Draft& draft, size_t place) const {
  const size_t match = count_of(draft, place);
  const Count& count = counts_[match];
  return (count.came_true + usual(match) * kUsualCounts) / (count.all + kUsualCounts);
}

void DraftRecord::learn(const Draft& draft, std::span<const int32_t> chosen) {
  for (size_t i = 0; i < std::min(draft.tokens.size(), chosen.size()); ++i) {
    Count& count = counts_[count_of(draft, i)];
    const bool came_true = draft.tokens[i] == chosen[i];
    count.all = kKept * count.all + 1;
    count.came_true = kKept * count.came_true + (came_true ? 1 : 0);
    if (!came_true) return;
  }
}

int64_t DraftPlan::longest() const {
  return most_ < 0 ? kDraftRows - 1 : std::min(most_, kDraftRows - 1);
}

double DraftPlan::row_cost() const {
  return std::max((took_ + kRowCost * kRowCounts) / (drafted_ + kRowCounts), kLeastRowCost);
}

std::vector<int64_t> DraftPlan::choose(int64_t rows, std::span<const DraftOffer> offers) {
  std::vector<int64_t> chosen(offers.size(), 0);
  const bool must_pay = most_ < 0;
  if (must_pay && (rows != rows_ || plain_ == 0 || since_plain_ >= kPlainAfter)) return chosen;
  const auto room = [&](size_t i) {
    return std::min({offers[i].most, static_cast<int64_t>(offers[i].draft->tokens.size()), longest()});
  };
  std::vector<double> next;  // how likely the next token of each draft comes true
  for (size_t i = 0; i < offers.size(); ++i)
    next.push_back(room(i) > 0 ? offers[i].record->probability(*offers[i].draft, 0) : 0);
  auto tokens = static_cast<double>(rows);  // that are expected of the step
  double cost = 1;
  for (int64_t left = kDraftRows - rows; left > 0; --left) {
    const auto likeliest = std::max_element(next.begin(), next.end());
    if (likeliest == next.end() || *likeliest == 0) break;
    if (must_pay && *likeliest * cost < kMargin * row_cost() * tokens) break;
    tokens += *likeliest;
    cost += row_cost();
    const auto i = static_cast<size_t>(likeliest - next.begin());
    const auto place = static_cast<size_t>(++chosen[i]);
    *likeliest *= chosen[i] < room(i) ? offers[i].record->probability(*offers[i].draft, place) : 0;
  }
  return chosen;
}

void DraftPlan::measured(int64_t rows, int64_t drafted, double seconds) {
  if (rows != rows_) plain_ = 0;
  rows_ = rows;
  if (drafted == 0) {
    plain_ += plain_ == 0 ? seconds : (seconds - plain_) * (seconds < plain_ ? kShorter : kLonger);
    since_plain_ = 0;
  } else {
    ++since_plain_;
  }
  const double kept = drafted == 0 ? kPlainKept : kDraftedKept;
  drafted_ *= kept;
  took_ *= kept;
  if (drafted == 0 || plain_ == 0) return;
  const auto n = static_cast<double>(drafted);
  drafted_ += n;
  took_ += std::clamp(seconds / plain_ - 1, 0.0, n);
}

}  // namespace qlora
