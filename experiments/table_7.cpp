#include "experiments/table_7.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/names.h"
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

Table7Column compute_column(const PublishedColumn& published, const std::vector<std::string>& files,
                            const Table7Spec& spec) {
  Table7Column column{published, {}, ""};
  if (files.empty() && preset(std::string(published.preset)).counts.empty()) {
    column.missing = fmt::format("{}: needs its judgment files (--oa FILES)", published.heading);
    column.cells = compare_column(published, nullptr);
    return column;
  }
  TournamentSpec tournament;
  tournament.preset = published.preset;
  tournament.files = files;
  tournament.orders = spec.orders;
  tournament.seed = spec.seed;
  tournament.bootstrap = 0;
  TournamentRatings ratings = Tournament(tournament).rate();
  column.cells = compare_column(published, &ratings.report());
  return column;
}

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

std::vector<std::string> footnotes(const Table7& table) {
  std::vector<std::string> notes;
  for (const Table7Column& column : table.columns) {
    for (size_t s = 0; s < column.cells.size(); ++s) {
      const ComparedCell& cell = column.cells[s];
      if (!cell.transposed()) continue;
      notes.push_back(
          fmt::format("* {}, {}: printed {}, must be {}; the cells of guanaco-13b under GPT-4 and of gpt-3.5 "
                      "under humans "
                      "stand in each other's place.",
                      qlora_median_ranks()[s].system, column.published.heading, *cell.printed, *cell.meant));
    }
    if (!column.missing.empty()) notes.push_back(column.missing + ".");
  }
  return notes;
}

}  // namespace

Table7 compute_table_7(const Table7Spec& spec) {
  Table7 table;
  table.orders = spec.orders;
  std::vector<std::string> known = {"qlora"};
  for (const PublishedColumn& column : qlora_table_7()) {
    known.emplace_back(column.preset);
    if (spec.preset != "qlora" && spec.preset != column.preset) continue;
    const auto& files = column.preset == "qlora-vicuna-human"  ? spec.human
                        : column.preset == "qlora-vicuna-gpt4" ? spec.gpt4
                                                               : spec.oa;
    table.columns.push_back(compute_column(column, files, spec));
  }
  QLORA_CHECK(!table.columns.empty(), usage, "{}", unknown_name("published table", spec.preset, known));
  return table;
}

std::string render_text(const Table7& table) {
  Table out;
  out.columns = {"system"};
  for (const Table7Column& column : table.columns)
    for (const char* what : {", paper", ", ours", ", rank"})
      out.columns.push_back(std::string(column.published.heading) + what);
  bool whole = table.columns.size() == qlora_table_7().size();
  if (whole) out.columns.insert(out.columns.end(), {"median rank, paper", "median rank, ours"});
  for (size_t s = 0; s < qlora_median_ranks().size(); ++s) {
    std::vector<Value> row = {std::string(qlora_median_ranks()[s].system)};
    for (const Table7Column& column : table.columns) {
      const ComparedCell& cell = column.cells[s];
      row.emplace_back(cell.printed ? fmt::format("{}{}", *cell.printed, cell.transposed() ? "*" : " ")
                                    : std::string("- "));
      row.emplace_back(cell.ours ? fmt::format("{:.1f}", *cell.ours) : std::string("-"));
      row.push_back(value_of(cell.our_rank));
    }
    if (whole) {
      row.emplace_back(int64_t{qlora_median_ranks()[s].printed});
      row.push_back(value_of(median_rank(table, s)));
    }
    out.rows.push_back(std::move(row));
  }
  std::string text = render_text(out);
  text += fmt::format(
      "Mean over {} orders; K = 4 for the Vicuna columns and 32 for OA, which is what gives the paper's "
      "figures, though its text says 32 for all.\n",
      table.orders);
  for (const std::string& note : footnotes(table)) text += note + "\n";
  return text;
}

Json to_json(const Table7& table) {
  Json columns = Json::array();
  for (const Table7Column& column : table.columns) {
    Json cells = Json::array();
    for (size_t s = 0; s < column.cells.size(); ++s) {
      const ComparedCell& cell = column.cells[s];
      cells.push_back({{"system", qlora_median_ranks()[s].system},
                       {"printed", json_of(cell.printed)},
                       {"meant", json_of(cell.meant)},
                       {"transposed", cell.transposed()},
                       {"ours", json_of(cell.ours)},
                       {"rank", json_of(cell.our_rank)}});
    }
    columns.push_back({{"heading", column.published.heading},
                       {"preset", column.published.preset},
                       {"cells", cells},
                       {"missing", column.missing.empty() ? Json(nullptr) : Json(column.missing)}});
  }
  Json medians = Json::array();
  for (size_t s = 0; s < qlora_median_ranks().size(); ++s)
    medians.push_back({{"system", qlora_median_ranks()[s].system},
                       {"printed", qlora_median_ranks()[s].printed},
                       {"ours", json_of(median_rank(table, s))}});
  return {
      {"columns", columns}, {"median_ranks", medians}, {"orders", table.orders}, {"notes", footnotes(table)}};
}

}  // namespace qlora
