#include "eval/agreement/relative.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include "core/base/check.h"
#include "eval/judge/known_systems.h"

namespace qlora {

namespace {

enum Order { kReferenceFirst, kSystemFirst, kUnknown, kOrders };

struct Points {
  double system = 0, reference = 0;
};
// Sums of one cluster by order of showing.
using Sums = std::array<Points, kOrders>;

struct Entry {
  RelativeScore score;
  std::vector<Sums> clusters;
};

class Collector {
 public:
  Collector(std::string reference, int64_t clusters)
      : reference_(std::move(reference)), clusters_(static_cast<size_t>(clusters)) {}

  void add_pair(const Vote& vote, size_t cluster) {
    bool system_first = vote.second == reference_;
    if (!system_first && vote.first != reference_) return;
    Entry& entry = entry_of(system_first ? vote.first : vote.second, vote.judge);
    if (!vote.valid()) {
      ++entry.score.invalid;
      return;
    }
    double system = *vote.first_score, reference = *vote.second_score;
    if (!system_first) std::swap(system, reference);
    add(entry, cluster,
        !vote.order_known ? kUnknown
        : system_first    ? kSystemFirst
                          : kReferenceFirst,
        {system, reference});
  }

  // `theirs`: the reference's score of the same judge, item and turn; null when there is none.
  void add_single(const Vote& vote, const Vote* theirs, size_t cluster) {
    if (vote.first == reference_) return;
    Entry& entry = entry_of(vote.first, vote.judge);
    if (!vote.valid() || theirs == nullptr || !theirs->valid())
      ++entry.score.invalid;
    else
      add(entry, cluster, kUnknown, {*vote.first_score, *theirs->first_score});
  }

  std::map<std::pair<std::string, std::string>, Entry>& entries() { return entries_; }

 private:
  Entry& entry_of(const std::string& system, const std::string& judge) {
    Entry& entry = entries_[{system, judge}];
    if (entry.clusters.empty()) {
      entry.score.system = system;
      entry.score.judge = judge;
      entry.clusters.resize(clusters_);
    }
    return entry;
  }
  static void add(Entry& entry, size_t cluster, Order order, Points points) {
    Points& sums = entry.clusters[cluster][order];
    sums.system += points.system;
    sums.reference += points.reference;
    ++entry.score.votes;
    entry.score.reference_first_votes += order == kReferenceFirst;
    entry.score.system_first_votes += order == kSystemFirst;
  }

  std::string reference_;
  size_t clusters_;
  std::map<std::pair<std::string, std::string>, Entry> entries_;
};

std::optional<double> percent(const Points& points) {
  return points.reference > 0 ? std::optional<double>(100 * points.system / points.reference) : std::nullopt;
}

void estimate(Entry& entry, const BootstrapOptions& options) {
  std::vector<Estimate> estimates = cluster_bootstrap(
      static_cast<int64_t>(entry.clusters.size()), options, [&](std::span<const int32_t> weights) {
        Sums sums;
        Points pooled;
        for (size_t c = 0; c < entry.clusters.size(); ++c)
          for (int order = 0; order < kOrders; ++order) {
            const Points& add = entry.clusters[c][static_cast<size_t>(order)];
            Points& sum = sums[static_cast<size_t>(order)];
            sum.system += weights[c] * add.system;
            sum.reference += weights[c] * add.reference;
            pooled.system += weights[c] * add.system;
            pooled.reference += weights[c] * add.reference;
          }
        return std::vector<std::optional<double>>{percent(sums[kReferenceFirst]), percent(sums[kSystemFirst]),
                                                  percent(pooled)};
      });
  entry.score.reference_first = estimates[0];
  entry.score.system_first = estimates[1];
  entry.score.pooled = estimates[2];
}

// The reference as the votes name it.
std::string find_reference(std::span<const JudgmentFile> files, const std::string& asked) {
  std::vector<JudgmentFile> points(files.begin(), files.end());
  std::erase_if(points, [](const JudgmentFile& file) { return file.votes.empty() || !file.votes[0].points; });
  QLORA_CHECK(!points.empty(), data, "no votes with points in {} files; relative scores need them",
              files.size());
  return find_system(known_systems(points), asked, "--reference");
}

}  // namespace

std::vector<RelativeScore> relative_scores(std::span<const JudgmentFile> files, const std::string& reference,
                                           const BootstrapOptions& options) {
  const std::string name = find_reference(files, reference);
  std::map<std::string, size_t> items;
  using Place = std::tuple<std::string, std::string, std::string, int>;  // judge, prompt, item, turn
  std::map<Place, const Vote*> singles;                                  // of the reference
  auto place_of = [](const Vote& v) { return Place{v.judge, v.prompt, v.item, v.turn}; };
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) {
      if (!vote.points) continue;
      items.try_emplace(vote.item, items.size());
      if (!vote.pairwise() && vote.first == name) singles[place_of(vote)] = &vote;
    }
  Collector collector(name, static_cast<int64_t>(items.size()));
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) {
      if (!vote.points) continue;
      if (vote.pairwise()) {
        collector.add_pair(vote, items.at(vote.item));
        continue;
      }
      auto theirs = singles.find(place_of(vote));
      collector.add_single(vote, theirs == singles.end() ? nullptr : theirs->second, items.at(vote.item));
    }
  std::vector<RelativeScore> scores;
  for (auto& [key, entry] : collector.entries()) {
    estimate(entry, options);
    scores.push_back(entry.score);
  }
  std::stable_sort(scores.begin(), scores.end(), [](const RelativeScore& a, const RelativeScore& b) {
    return a.pooled.value.value_or(-1) > b.pooled.value.value_or(-1);
  });
  return scores;
}

std::span<const PublishedRelativeScore> published_relative_scores() {
  static constexpr std::string_view kSwapped = "the two orders are swapped in print";
  static constexpr std::string_view kMean = "the printed mean does not follow from the released scores";
  static constexpr std::string_view kCopied = "the printed row is Vicuna's; the released scores are others";
  static constexpr PublishedRelativeScore kTable6[] = {
      {"gpt-4", 119.4, 110.1, 114.5, kSwapped},
      {"bard", 93.2, 96.4, 94.8, ""},
      {"guanaco-65b", 96.7, 101.9, 99.3, ""},
      {"alpaca-65b", 63.0, 77.9, 70.7, ""},
      {"flan-65b", 37.0, 59.6, 48.4, ""},
      {"guanaco-33b", 96.5, 99.2, 97.8, ""},
      {"huggingchat-33b", 91.2, 98.7, 94.9, kCopied},
      {"alpaca-33b", 67.2, 79.7, 73.6, ""},
      {"flan-33b", 26.3, 49.7, 38.0, ""},
      {"vicuna-13b", 91.2, 98.7, 94.9, ""},
      {"guanaco-13b", 87.3, 93.4, 90.4, ""},
      {"alpaca-13b", 63.8, 76.7, 69.4, kMean},
      {"hh-rlhf-13b", 55.5, 69.1, 62.5, ""},
      {"unnatural-instructions-13b", 50.6, 69.8, 60.5, ""},
      {"chip2-13b", 49.2, 69.3, 59.5, ""},
      {"longform-13b", 44.9, 62.0, 53.6, ""},
      {"self-instruct-13b", 38.0, 60.5, 49.1, kMean},
      {"flan-13b", 32.4, 61.2, 47.0, ""},
      {"guanaco-7b", 84.1, 89.8, 87.0, ""},
      {"alpaca-7b", 57.3, 71.2, 64.4, ""},
      {"flan-7b", 33.3, 56.1, 44.8, ""},
  };
  return kTable6;
}

}  // namespace qlora
