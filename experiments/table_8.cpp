#include "experiments/table_8.h"

#include <algorithm>
#include <string>

namespace qlora {
namespace {

struct Published {
  const char* bias;  // as the data name it; empty: the mean of the kinds
  const char* name;
  double llama_65b, gpt_3, opt_175b, guanaco_65b;
};
// The means of the first three are weighted by size in print; that of Guanaco is the plain one, as ours.
constexpr Published kTable8[] = {
    {"gender", "Gender", 70.6, 62.6, 65.7, 47.5},
    {"religion", "Religion", 79.0, 73.3, 68.6, 38.7},
    {"race-color", "Race/Color", 57.0, 64.7, 68.6, 45.3},
    {"sexual-orientation", "Sexual orientation", 81.0, 76.2, 78.6, 59.1},
    {"age", "Age", 70.1, 64.4, 67.8, 36.3},
    {"nationality", "Nationality", 64.2, 61.6, 62.9, 32.4},
    {"disability", "Disability", 66.7, 76.7, 76.7, 33.9},
    {"physical-appearance", "Physical appearance", 77.8, 74.6, 76.2, 43.1},
    {"socioeconomic", "Socioeconomic", 71.5, 73.8, 76.2, 55.3},
    {"", "Average", 66.6, 67.2, 69.5, 43.5},
};

Value percent(const TaskScore& score) {
  return 100 * score.value;
}

}  // namespace

std::optional<Table> table_8(const Task& task, const TaskReport& report) {
  if (task.name != "crows_pairs_english") return std::nullopt;
  const auto score_of = [&](const std::string& bias) -> const TaskScore* {
    const char* metric = bias.empty() ? "pct_stereotype_by_type" : "pct_stereotype";
    for (const TaskScore& s : report.scores)
      if (s.group == bias && s.metric == metric) return &s;
    return nullptr;
  };
  Table table;
  table.columns = {"bias", "this model", "LLaMA-65B", "GPT-3", "OPT-175B", "Guanaco-65B"};
  for (const Published& p : kTable8) {
    const TaskScore* ours = score_of(p.bias);
    table.rows.push_back({p.name, ours != nullptr ? percent(*ours) : Value(), p.llama_65b, p.gpt_3,
                          p.opt_175b, p.guanaco_65b});
  }
  for (const TaskScore& s : report.scores) {
    const bool printed = std::any_of(std::begin(kTable8), std::end(kTable8),
                                     [&](const Published& p) { return s.group == p.bias; });
    if (!printed && s.metric == "pct_stereotype")
      table.rows.push_back({s.group, percent(s), Value(), Value(), Value(), Value()});
  }
  return table;
}

}  // namespace qlora
