#include "eval/ratings/win_graph.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/base/check.h"
#include "eval/ratings/report.h"

namespace qlora {

namespace {

std::string names_of(std::span<const std::string> systems, const std::vector<int32_t>& group) {
  std::vector<std::string> names;
  for (int32_t s : group) names.push_back(systems[static_cast<size_t>(s)]);
  return fmt::format("{}", fmt::join(names, ", "));
}

// Why a single system's strength is infinite; empty where it alone is not the cause.
std::string lonely(const Rating& r) {
  if (r.wins + r.ties == 0) return fmt::format("{} has no win and no tie in {} matches", r.system, r.games);
  if (r.losses + r.ties == 0)
    return fmt::format("{} has no loss and no tie in {} matches", r.system, r.games);
  return "";
}

}  // namespace

void WinGraph::add(int32_t first, int32_t second, Outcome outcome) {
  auto a = static_cast<size_t>(first), b = static_cast<size_t>(second);
  if (outcome != Outcome::second_wins) edge_[a * systems_ + b] = 1;
  if (outcome != Outcome::first_wins) edge_[b * systems_ + a] = 1;
}

void WinGraph::tie_together(std::span<const int32_t> systems) {
  for (int32_t a : systems)
    for (int32_t b : systems)
      if (a != b) add(a, b, Outcome::tie);
}

std::vector<uint8_t> WinGraph::reached(size_t start, bool forward) const {
  std::vector<uint8_t> seen(systems_);
  std::vector<size_t> open = {start};
  seen[start] = 1;
  while (!open.empty()) {
    size_t at = open.back();
    open.pop_back();
    for (size_t next = 0; next < systems_; ++next) {
      if (seen[next] || !edge_[forward ? at * systems_ + next : next * systems_ + at]) continue;
      seen[next] = 1;
      open.push_back(next);
    }
  }
  return seen;
}

bool WinGraph::strongly_connected() const {
  if (systems_ == 0) return true;
  for (bool forward : {true, false}) {
    std::vector<uint8_t> seen = reached(0, forward);
    if (std::count(seen.begin(), seen.end(), 0) > 0) return false;
  }
  return true;
}

std::vector<std::vector<int32_t>> WinGraph::groups() const {
  std::vector<std::pair<int64_t, std::vector<int32_t>>> found;  // with how many systems it reaches
  std::vector<uint8_t> placed(systems_);
  for (size_t s = 0; s < systems_; ++s) {
    if (placed[s]) continue;
    std::vector<uint8_t> below = reached(s, true), above = reached(s, false);
    std::vector<int32_t> group;
    for (size_t other = s; other < systems_; ++other) {
      if (!below[other] || !above[other]) continue;
      placed[other] = 1;
      group.push_back(static_cast<int32_t>(other));
    }
    found.emplace_back(std::count(below.begin(), below.end(), 1), group);
  }
  // Whoever has won against another group reaches all that it reaches, and itself.
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::vector<int32_t>> groups;
  for (auto& [reach, group] : found) groups.push_back(std::move(group));
  return groups;
}

void check_win_graph(std::span<const std::string> systems, std::span<const Match> matches,
                     std::span<const int32_t> anchored) {
  std::vector<Rating> games = count_games(systems, matches);
  std::vector<int32_t> idle;
  for (size_t s = 0; s < systems.size(); ++s)
    if (games[s].games == 0 && std::find(anchored.begin(), anchored.end(), s) == anchored.end())
      idle.push_back(static_cast<int32_t>(s));
  QLORA_CHECK(idle.empty(), data, "no match to rate these by: {}; judge some, or leave them out (--systems)",
              names_of(systems, idle));

  WinGraph graph(systems.size());
  for (const Match& m : matches) graph.add(m.first, m.second, m.outcome);
  graph.tie_together(anchored);
  std::vector<std::vector<int32_t>> groups = graph.groups();
  if (groups.size() <= 1) return;
  std::vector<std::string> causes, texts;
  for (const std::vector<int32_t>& group : groups) {
    texts.push_back("{" + names_of(systems, group) + "}");
    std::string cause = group.size() == 1 ? lonely(games[static_cast<size_t>(group[0])]) : "";
    if (!cause.empty()) causes.push_back(cause);
  }
  fail(
      ErrorKind::data,
      "the win graph is not strongly connected, so that no finite strengths exist: {}{}no group has a win or "
      "a tie against one that stands before it: {}. Judge more pairs, leave systems out (--systems), or use "
      "--model elo",
      fmt::join(causes, "; "), causes.empty() ? "" : "; ", fmt::join(texts, ", "));
}

}  // namespace qlora
