#include "experiments/leaderboard.h"

#include <algorithm>

namespace qlora {
namespace {

bool is_empty(const Value& value) {
  return std::holds_alternative<std::monostate>(value) ||
         (std::holds_alternative<std::string>(value) && std::get<std::string>(value).empty());
}

// The table with these columns only, as far as any row has something in them.
Table select(const Table& table, const std::vector<std::string>& names) {
  Table out;
  out.rows.resize(table.rows.size());
  for (const std::string& name : names) {
    auto at = std::find(table.columns.begin(), table.columns.end(), name);
    if (at == table.columns.end()) continue;
    auto column = static_cast<size_t>(at - table.columns.begin());
    bool empty = std::all_of(table.rows.begin(), table.rows.end(),
                             [&](const std::vector<Value>& row) { return is_empty(row[column]); });
    if (empty) continue;
    out.columns.push_back(name);
    for (size_t i = 0; i < table.rows.size(); ++i) out.rows[i].push_back(table.rows[i][column]);
  }
  return out;
}

}  // namespace

std::string render_leaderboard(const Table& leaderboard) {
  TextStyle style;
  style.digits = 4;
  style.max_width = 36;
  return render_text(
      select(leaderboard, {"name", "state", "quant", "lora_r", "steps", "train_loss", "loss_before",
                           "loss_after", "mmlu", "mmlu_se", "mmlu_macro", "mmlu_n", "tokens", "seconds"}),
      style);
}

std::string render_ratings(const Table& ratings) {
  TextStyle style;
  style.digits = 6;
  return render_text(select(ratings, {"rank", "system", "rating", "order_sd", "ci_lo", "ci_hi", "games",
                                      "wins", "losses", "ties"}),
                     style);
}

std::string next_steps(const Sweep& sweep, const WorkPlan& plan, const Path& db) {
  if (plan.runs.empty()) return "";
  const PlannedRun& run = plan.runs[0];
  std::string model = run.config.text("model_name_or_path");
  std::string adapter = (run_folder(sweep, run) / "adapter").string();
  std::string store = db == "results.db" ? "" : " --db " + db.string();
  std::string out = "What to try next:\n";
  out += fmt::format("  qlora results show {}{}\n", run.name, store);
  out += fmt::format(
      "  qlora results query \"SELECT name, loss_after FROM leaderboard ORDER BY loss_after\"{}\n", store);
  out += fmt::format("  qlora generate --model {} --adapter {} --prompt \"...\" --greedy\n", model, adapter);
  for (const EvalSpec& eval : sweep.evals)
    if (eval.task == "mmlu" && eval.mmlu.limit > 0) {
      out += fmt::format("  qlora eval mmlu --model {} --adapter {} --data {} --shots {}   # all questions\n",
                         model, adapter, eval.data, eval.mmlu.shots);
      break;
    }
  return out;
}

}  // namespace qlora
