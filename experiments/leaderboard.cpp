#include "experiments/leaderboard.h"

#include <algorithm>
#include <cctype>

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

// As a shell reads it back.
std::string quoted(const std::string& word) {
  auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("/._-+=:,@").find(c) != std::string_view::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string out = "'";
  for (char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
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

std::string next_steps(const Sweep& sweep, const PlannedRun& run, const Path& adapter,
                       const SweepOptions& options) {
  std::string program = quoted(options.program);
  std::string store = " --db " + quoted(options.db.string());
  std::string model = fmt::format("--model {} --adapter {}", quoted(run.config.text("model_name_or_path")),
                                  quoted(adapter.string()));
  std::string out = "What to try next:\n";
  out += fmt::format("  {} results show {}{}\n", program, hex(run.key).substr(0, 12), store);
  out +=
      fmt::format("  {} results query \"SELECT name, loss_after FROM leaderboard ORDER BY loss_after\"{}\n",
                  program, store);
  out += fmt::format("  {} generate {} --prompt \"...\" --greedy\n", program, model);
  for (const EvalSpec& eval : sweep.evals)
    if (eval.task == "mmlu" && eval.mmlu.limit > 0) {
      out += fmt::format("  {} eval mmlu {} --data {} --split {} --shots {}{}   # all questions\n", program,
                         model, quoted(eval.data), eval.mmlu.split, eval.mmlu.shots, store);
      break;
    }
  return out;
}

}  // namespace qlora
