#include "experiments/bench/row.h"

#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/bench/measure.h"
#include "results/table.h"

namespace qlora::bench {
namespace {

Json optional_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

std::vector<double> rates(double work, const std::vector<double>& seconds) {
  std::vector<double> out;
  for (double s : seconds) out.push_back(work / s);
  return out;
}

std::string number(const std::optional<double>& value) {
  if (!value) return "";
  return *value >= 100 ? fmt::format("{:.0f}", *value) : fmt::format("{:.3g}", *value);
}

}  // namespace

std::optional<bool> Row::met() const {
  if (!ratio || !goal) return std::nullopt;
  return lower_is_better ? *ratio <= *goal : *ratio >= *goal;
}

Row paired_row(const std::string& name, const std::string& unit, double work,
               const std::vector<std::vector<double>>& seconds, int threads) {
  Row row = single_row(name, unit, work, seconds.at(0), threads);
  const std::vector<double> ratios = quotients(seconds.at(1), seconds.at(0));
  row.peer = median(rates(work, seconds[1]));
  row.ratio = median(ratios);
  row.spread = spread(ratios);
  return row;
}

Row single_row(const std::string& name, const std::string& unit, double work,
               const std::vector<double>& seconds, int threads) {
  Row row;
  row.name = name;
  row.unit = unit;
  row.ours = median(rates(work, seconds));
  row.spread = spread(seconds);
  row.threads = threads;
  return row;
}

Row missing_row(const std::string& name, const std::string& unit, int threads, const std::string& why) {
  Row row;
  row.name = name;
  row.unit = unit;
  row.threads = threads;
  row.note = why;
  return row;
}

void add_note(Row& row, const std::string& note) {
  if (!note.empty()) row.note += (row.note.empty() ? "" : "; ") + note;
}

Json to_json(const Row& row) {
  return {{"name", row.name},
          {"unit", row.unit},
          {"ours", optional_json(row.ours)},
          {"peer", optional_json(row.peer)},
          {"ratio", optional_json(row.ratio)},
          {"spread", row.ours || row.ratio ? Json(row.spread) : Json(nullptr)},
          {"goal", optional_json(row.goal)},
          {"lower_is_better", row.lower_is_better},
          {"threads", row.threads},
          {"against", row.against},
          {"note", row.note}};
}

Row row_from_json(const Json& json, const std::string& origin) {
  auto number_at = [&](const char* key) -> std::optional<double> {
    return json.at(key).is_null() ? std::nullopt : std::optional(json.at(key).get<double>());
  };
  try {
    Row row;
    row.name = json.at("name").get<std::string>();
    row.unit = json.at("unit").get<std::string>();
    row.ours = number_at("ours");
    row.peer = number_at("peer");
    row.ratio = number_at("ratio");
    row.spread = number_at("spread").value_or(0);
    row.goal = number_at("goal");
    row.lower_is_better = json.at("lower_is_better").get<bool>();
    row.threads = json.at("threads").get<int>();
    row.against = json.at("against").get<std::string>();
    row.note = json.at("note").get<std::string>();
    return row;
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: no row of a benchmark: {}", origin, e.what());
  }
}

std::string one_line(const Row& row) {
  std::string out = row.name + ":";
  if (row.ours) out += fmt::format(" {} {}", number(row.ours), row.unit);
  if (row.ratio) out += fmt::format(", {:.3f} x {}", *row.ratio, row.against);
  if (row.ours || row.ratio) out += fmt::format(" (spread {:.0f}%)", 100 * row.spread);
  if (std::optional<bool> met = row.met())
    out += *met ? ", goal met" : fmt::format(", goal {:.3g} MISSED", *row.goal);
  if (!row.note.empty()) out += "; " + row.note;
  return out;
}

std::string render(const std::vector<Row>& rows) {
  Table table;
  table.columns = {"row", "threads", "ours", "peer", "unit", "ratio", "spread", "goal", "met", "note"};
  for (const Row& row : rows) {
    std::string goal =
        row.goal ? fmt::format("{} {:.3g}", row.lower_is_better ? "<=" : ">=", *row.goal) : std::string();
    std::optional<bool> met = row.met();
    std::string note = row.note;
    if (!row.against.empty()) note = note.empty() ? "/ " + row.against : "/ " + row.against + "; " + note;
    table.rows.push_back({row.name, static_cast<int64_t>(row.threads), number(row.ours), number(row.peer),
                          row.unit, row.ratio ? fmt::format("{:.3f}", *row.ratio) : "",
                          row.ours || row.ratio ? fmt::format("{:.0f}%", 100 * row.spread) : "", goal,
                          met ? (*met ? "yes" : "NO") : "", note});
  }
  TextStyle style;
  style.max_width = 90;
  return render_text(table, style);
}

}  // namespace qlora::bench
