#include "experiments/table_7.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/names.h"
#include "eval/judge/known_systems.h"
#include "eval/ratings/presets.h"
#include "experiments/tournament.h"
#include "results/table.h"

namespace qlora {
namespace {

template <class T>
Json json_of(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Value value_of(const std::optional<int>& rank) {
  Value value;
  if (rank) value = int64_t{*rank};
  return value;
}

// ---- which votes belong to which column

// A judge, and what it judged: answers to questions, or to messages of Open Assistant.
struct JudgedSet {
  std::string judge;
  bool messages = false;
  auto operator<=>(const JudgedSet&) const = default;
};

const std::map<std::string_view, JudgedSet>& published_sets() {
  static const std::map<std::string_view, JudgedSet> sets = {{"qlora-vicuna-human", {"human", false}},
                                                             {"qlora-vicuna-gpt4", {"gpt-4", false}},
                                                             {"qlora-oa-gpt4", {"gpt-4", true}}};
  return sets;
}

// Messages have UUIDs, questions have numbers or names.
bool is_message(const std::string& item) {
  if (item.size() != 36) return false;
  for (size_t i = 0; i < item.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? item[i] != '-' : std::isxdigit(static_cast<unsigned char>(item[i])) == 0) return false;
  }
  return true;
}

using JudgedSets = std::map<JudgedSet, std::vector<JudgmentFile>>;

JudgedSets sets_of(const std::vector<JudgmentFile>& files) {
  JudgedSets sets;
  for (const JudgmentFile& file : files) {
    std::map<JudgedSet, JudgmentFile> parts;
    for (const Vote& vote : file.votes) {
      if (!vote.pairwise()) continue;
      JudgmentFile& part = parts[{vote.judge, is_message(vote.item)}];
      part.path = file.path;
      part.votes.push_back(vote);
    }
    for (auto& [set, part] : parts) sets[set].push_back(std::move(part));
  }
  return sets;
}

// ---- columns

TournamentSpec tournament_of(const Table7Spec& spec) {
  TournamentSpec tournament;
  tournament.orders = spec.orders;
  tournament.seed = spec.seed;
  tournament.bootstrap = 0;
  tournament.systems = spec.systems;
  tournament.votes = spec.rule;
  return tournament;
}

struct RatedColumn {
  Table7Column column;
  std::optional<TournamentRatings> ratings;
};

RatedColumn rated(const std::string& heading, const PublishedColumn* published,
                  const Tournament& tournament) {
  RatedColumn out{{heading, published, {}, "", ""}, tournament.rate()};
  out.column.note = out.ratings->report().note;
  return out;
}

RatedColumn without_ratings(const std::string& heading, const PublishedColumn* published,
                            const std::string& why) {
  return {{heading, published, {}, heading + ": " + why, ""}, {}};
}

// A column of the paper's table, of its counts, its own files, or its part of the votes.
RatedColumn published_column(const PublishedColumn& published, const Table7Spec& spec, JudgedSets& sets) {
  const std::string name(published.preset), heading(published.heading);
  TournamentSpec tournament = tournament_of(spec);
  tournament.preset = name;
  if (spec.votes) {
    const JudgedSet& set = published_sets().at(name);
    auto found = sets.find(set);
    if (found == sets.end())
      return without_ratings(
          heading, &published,
          fmt::format("no vote by {} on {}", set.judge, set.messages ? "messages" : "questions"));
    tournament.stored = true;
    return rated(heading, &published, Tournament(tournament, std::move(found->second)));
  }
  tournament.files = name == "qlora-vicuna-human"  ? spec.human
                     : name == "qlora-vicuna-gpt4" ? spec.gpt4
                                                   : spec.oa;
  if (tournament.files.empty() && preset(name).counts.empty())
    return without_ratings(heading, &published, "needs its judgment files (--oa FILES)");
  RatedColumn out = rated(heading, &published, Tournament(tournament));
  if (tournament.files.empty()) out.column.note.clear();  // where counts come from: `qlora elo presets`
  return out;
}

bool has_verdict(const JudgmentFile& file) {
  return std::any_of(file.votes.begin(), file.votes.end(), [](const Vote& vote) { return vote.valid(); });
}

// The published column of a judge, when the votes are about all its systems.
const PublishedColumn* published_of(const JudgedSet& set, const KnownSystems& known) {
  for (const PublishedColumn& column : qlora_table_7()) {
    const bool all = std::all_of(column.ratings.begin(), column.ratings.end(), [&](const PublishedRating& r) {
      return known.contains(std::string(r.system));
    });
    if (all && published_sets().at(column.preset) == set) return &column;
  }
  return nullptr;
}

RatedColumn column_of(const JudgedSet& set, std::vector<JudgmentFile> votes, bool both,
                      const Table7Spec& spec) {
  const KnownSystems known = known_systems(votes);
  const PublishedColumn* published = published_of(set, known);
  std::string heading = published != nullptr ? std::string(published->heading) : set.judge;
  if (published == nullptr && both) heading += set.messages ? ", messages" : ", questions";
  TournamentSpec tournament = tournament_of(spec);
  tournament.stored = true;
  std::erase_if(tournament.systems, [&](const std::string& name) {
    return !known.contains(name) && !known.contains(system_alias(name));
  });
  if (!spec.systems.empty() && tournament.systems.empty())
    return without_ratings(heading, published, "no vote about the systems asked for");
  const auto asked = only_between(votes, tournament.systems);
  if (std::none_of(asked.begin(), asked.end(), has_verdict))
    return without_ratings(heading, published, "no verdict could be read, or none is between these systems");
  std::vector<std::string> more;
  if (published != nullptr) {
    const Preset& settings = preset(std::string(published->preset));
    tournament.k = settings.k;
    if (tournament.votes.empty()) tournament.votes = settings.votes;
    for (const auto& [name, place] : known)
      if (std::find(settings.systems.begin(), settings.systems.end(), name) == settings.systems.end())
        more.push_back(name);
  }
  RatedColumn out = rated(heading, published, Tournament(tournament, std::move(votes)));
  if (!more.empty() && spec.systems.empty())
    out.column.note = fmt::format("The paper rated without {} (--preset {} does too).", fmt::join(more, ", "),
                                  published->preset);
  return out;
}

std::vector<RatedColumn> columns_of(const Table7Spec& spec) {
  JudgedSets sets;
  if (spec.votes) {
    for (const std::string& system : spec.systems)
      find_system(known_systems(*spec.votes), system, "--systems");
    sets = sets_of(spec.only_by.empty() ? *spec.votes : only_by(*spec.votes, spec.only_by));
    QLORA_CHECK(!sets.empty(), data, "no vote compares two answers; a table of ratings needs such votes");
  }
  std::vector<RatedColumn> columns;
  if (!spec.preset.empty()) {
    std::vector<std::string> known = {"qlora"};
    for (const PublishedColumn& column : qlora_table_7()) {
      known.emplace_back(column.preset);
      if (spec.preset == "qlora" || spec.preset == column.preset)
        columns.push_back(published_column(column, spec, sets));
    }
    QLORA_CHECK(!columns.empty(), usage, "{}", unknown_name("published table", spec.preset, known));
  } else {
    for (auto& [set, votes] : sets) {
      const bool both = sets.contains({set.judge, !set.messages});
      columns.push_back(column_of(set, std::move(votes), both, spec));
    }
  }
  const bool any =
      std::any_of(columns.begin(), columns.end(), [](const RatedColumn& c) { return c.ratings; });
  QLORA_CHECK(any || !spec.votes, data, "{}", columns.front().column.missing);
  return columns;
}

// ---- the table

// The ranks of a system over the columns; a median of two is rounded up, as in print.
std::optional<int> median_rank(const Table7& table, size_t system) {
  std::vector<int> ranks;
  for (const Table7Column& column : table.columns) {
    if (!column.missing.empty()) return {};
    if (column.cells[system].our_rank) ranks.push_back(*column.cells[system].our_rank);
  }
  if (ranks.empty()) return {};
  std::sort(ranks.begin(), ranks.end());
  size_t n = ranks.size();
  return n % 2 == 1 ? ranks[n / 2] : (ranks[n / 2 - 1] + ranks[n / 2] + 1) / 2;
}

std::optional<int> printed_median(const Table7& table, size_t system) {
  for (const MedianRank& row : qlora_median_ranks())
    if (table.whole && row.system == table.systems[system]) return row.printed;
  return {};
}

// The paper's systems in its order, then others, best first.
std::vector<std::string> systems_of(const std::vector<RatedColumn>& columns, bool published) {
  std::vector<std::string> systems;
  std::vector<std::pair<double, std::string>> others;  // by the mean of the ranks' parts from the top
  std::map<std::string, std::pair<double, int>> places;
  for (const MedianRank& row : qlora_median_ranks())
    if (published) systems.emplace_back(row.system);
  for (const RatedColumn& column : columns) {
    if (!column.ratings) continue;
    const auto& ratings = column.ratings->report().ratings;
    for (size_t i = 0; i < ratings.size(); ++i) {
      auto& [sum, n] = places[ratings[i].system];
      sum += static_cast<double>(i) / static_cast<double>(ratings.size());
      ++n;
    }
  }
  for (const auto& [name, place] : places)
    if (std::find(systems.begin(), systems.end(), name) == systems.end())
      others.emplace_back(place.first / place.second, name);
  std::sort(others.begin(), others.end());
  for (auto& [place, name] : others) systems.push_back(std::move(name));
  return systems;
}

std::vector<std::string> footnotes(const Table7& table) {
  std::vector<std::string> notes;
  for (const Table7Column& column : table.columns) {
    for (size_t s = 0; s < column.cells.size(); ++s) {
      const ComparedCell& cell = column.cells[s];
      if (!cell.transposed()) continue;
      notes.push_back(
          fmt::format("* {}, {}: printed {}, must be {}; the cells of guanaco-13b under GPT-4 and of gpt-3.5 "
                      "under humans stand in each other's place.",
                      table.systems[s], column.heading, *cell.printed, *cell.meant));
    }
    if (!column.note.empty()) notes.push_back(fmt::format("{}: {}", column.heading, column.note));
    if (!column.missing.empty()) notes.push_back(column.missing + ".");
  }
  return notes;
}

}  // namespace

Table7 compute_table_7(const Table7Spec& spec) {
  std::vector<RatedColumn> columns = columns_of(spec);
  Table7 table;
  table.orders = spec.orders;
  table.systems = systems_of(columns, !spec.preset.empty());
  table.whole = spec.preset == "qlora";
  for (RatedColumn& c : columns) {
    c.column.cells =
        compare_column(table.systems, c.column.published, c.ratings ? &c.ratings->report() : nullptr);
    table.columns.push_back(std::move(c.column));
  }
  return table;
}

std::string render_text(const Table7& table) {
  Table out;
  out.columns = {"system"};
  bool in_print = false;
  for (const Table7Column& column : table.columns) {
    in_print = in_print || column.published != nullptr;
    if (column.published != nullptr) out.columns.push_back(column.heading + ", paper");
    for (const char* what : {", ours", ", rank"}) out.columns.push_back(column.heading + what);
  }
  const bool several = table.columns.size() > 1;
  if (table.whole) out.columns.emplace_back("median rank, paper");
  if (several) out.columns.emplace_back(table.whole ? "median rank, ours" : "median rank");
  for (size_t s = 0; s < table.systems.size(); ++s) {
    std::vector<Value> row = {table.systems[s]};
    for (const Table7Column& column : table.columns) {
      const ComparedCell& cell = column.cells[s];
      if (column.published != nullptr)
        row.emplace_back(cell.printed ? fmt::format("{}{}", *cell.printed, cell.transposed() ? "*" : " ")
                                      : std::string("- "));
      row.emplace_back(cell.ours ? fmt::format("{:.1f}", *cell.ours) : std::string("-"));
      row.push_back(value_of(cell.our_rank));
    }
    if (table.whole) row.push_back(value_of(printed_median(table, s)));
    if (several) row.push_back(value_of(median_rank(table, s)));
    out.rows.push_back(std::move(row));
  }
  std::string text = render_text(out);
  text += in_print ? fmt::format(
                         "Mean over {} orders; K = 4 for the Vicuna columns and 32 for all others, which is "
                         "what gives the paper's figures, though its text says 32 for all.\n",
                         table.orders)
                   : fmt::format("Online Elo, mean over {} orders; K = 32.\n", table.orders);
  for (const std::string& note : footnotes(table)) text += note + "\n";
  return text;
}

Json to_json(const Table7& table) {
  Json columns = Json::array();
  for (const Table7Column& column : table.columns) {
    Json cells = Json::array();
    for (size_t s = 0; s < column.cells.size(); ++s) {
      const ComparedCell& cell = column.cells[s];
      cells.push_back({{"system", table.systems[s]},
                       {"printed", json_of(cell.printed)},
                       {"meant", json_of(cell.meant)},
                       {"transposed", cell.transposed()},
                       {"ours", json_of(cell.ours)},
                       {"rank", json_of(cell.our_rank)}});
    }
    columns.push_back(
        {{"heading", column.heading},
         {"preset", column.published != nullptr ? Json(column.published->preset) : Json(nullptr)},
         {"cells", cells},
         {"missing", column.missing.empty() ? Json(nullptr) : Json(column.missing)}});
  }
  Json medians = Json::array();
  for (size_t s = 0; s < table.systems.size(); ++s)
    medians.push_back({{"system", table.systems[s]},
                       {"printed", json_of(printed_median(table, s))},
                       {"ours", json_of(median_rank(table, s))}});
  return {
      {"columns", columns}, {"median_ranks", medians}, {"orders", table.orders}, {"notes", footnotes(table)}};
}

}  // namespace qlora
