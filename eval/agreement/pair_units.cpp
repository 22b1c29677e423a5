#include "eval/agreement/pair_units.h"

#include <tuple>

#include "core/base/check.h"

namespace qlora {

namespace {

int32_t number_of(const std::string& name, std::map<std::string, int32_t>& numbers,
                  std::vector<std::string>& names) {
  auto [place, fresh] = numbers.try_emplace(name, static_cast<int32_t>(names.size()));
  if (fresh) names.push_back(name);
  return place->second;
}

}  // namespace

PairUnits pair_units(std::span<const JudgmentFile> files) {
  PairUnits all;
  std::map<std::string, int32_t> judges, items;
  std::map<std::tuple<int32_t, int, std::string, std::string>, size_t> places;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes)
      if (vote.pairwise()) number_of(vote.judge, judges, all.judges);
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) {
      if (!vote.pairwise()) continue;
      int32_t item = number_of(vote.item, items, all.items);
      bool a_first = vote.first < vote.second;
      const std::string &a = a_first ? vote.first : vote.second, &b = a_first ? vote.second : vote.first;
      auto [place, fresh] = places.try_emplace({item, vote.turn, a, b}, all.units.size());
      if (fresh) {
        all.units.push_back({item, vote.item, a, b, vote.turn, {}});
        all.units.back().votes.resize(all.judges.size());
      }
      auto& orders = all.units[place->second].votes[static_cast<size_t>(judges.at(vote.judge))];
      if (vote.order_known)
        orders[a_first ? 0 : 1].push_back(vote.verdict);
      else
        orders[2].push_back(a_first ? vote.verdict : swapped(vote.verdict));
    }
  QLORA_CHECK(!all.units.empty(), data, "no vote on two answers in {} files", files.size());
  return all;
}

Verdict swapped(Verdict verdict) {
  return verdict == Verdict::first_wins    ? Verdict::second_wins
         : verdict == Verdict::second_wins ? Verdict::first_wins
                                           : verdict;
}

int category_of(Verdict verdict) {
  QLORA_CHECK(verdict != Verdict::invalid, failure, "an invalid verdict has no category");
  return verdict == Verdict::first_wins ? 0 : verdict == Verdict::second_wins ? 2 : 1;
}

}  // namespace qlora
