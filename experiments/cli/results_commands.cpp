// qlora results leaderboard|show|query.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/cli/cli.h"
#include "experiments/leaderboard.h"
#include "results/query.h"
#include "results/store.h"

namespace qlora {
namespace {

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

int show_leaderboard(const Invocation& in, const std::string& sweep, bool all) {
  Table board = Store::open_read_only(in.db).leaderboard(sweep);
  print(in.json ? render_json(board) : all ? render_text(board) : render_leaderboard(board));
  return 0;
}

int show_run(const Invocation& in, const std::string& name) {
  RunDetails details = Store::open_read_only(in.db).show(name);
  const RunInfo& run = details.run;
  if (in.json) {
    Json json = {{"key", hex(run.key)},
                 {"name", run.name},
                 {"state", name_of(run.state)},
                 {"reason", run.reason},
                 {"config", parse_json(run.config_json, "the run's configuration")},
                 {"created_at", run.created_at},
                 {"finished_at", run.finished_at},
                 {"attempts", to_json(details.attempts)},
                 {"curve", to_json(details.curve)},
                 {"evaluations", to_json(details.evaluations)}};
    fmt::print("{}\n", json.dump(1));
    return 0;
  }
  fmt::print("run {}\nkey {}\nstate {}{}{}\n\n", run.name, hex(run.key), name_of(run.state),
             run.reason.empty() ? "" : ": ", run.reason);
  Json config = parse_json(run.config_json, "the run's configuration");
  for (const auto& [key, value] : config.items())
    fmt::print("  {}: {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  print("\nattempts\n" + render_text(details.attempts) + "\nevaluations\n" +
        render_text(details.evaluations) + "\ncurve\n" + render_text(details.curve));
  return 0;
}

int run_sql(const Invocation& in, const std::string& sql) {
  Table table = run_query(in.db, sql);
  print(in.json ? render_json(table) : render_text(table));
  return 0;
}

}  // namespace

void add_results_commands(CLI::App& app, Invocation& in) {
  CLI::App* results = app.add_subcommand("results", "what is stored");
  results->footer(group_footer("  qlora results leaderboard\n  qlora results show RUN"));
  results->require_subcommand(1);
  auto text = std::make_shared<std::string>();
  auto all = std::make_shared<bool>(false);

  CLI::App* board = results->add_subcommand("leaderboard", "runs and bases, best first");
  board->add_option("--sweep", *text, "only this sweep's");
  board->add_flag("--all", *all, "every column");
  board->footer(
      "Examples:\n  qlora results leaderboard\n  qlora results leaderboard --sweep quickstart --json");
  board->callback([=, &in] { in.work = [=, &in] { return show_leaderboard(in, *text, *all); }; });

  CLI::App* show = results->add_subcommand("show", "everything about one run");
  show->add_option("run", *text, "its name, or the first digits of its key")->required();
  show->footer("Examples:\n  qlora results show alpaca_basics-lora_r8\n  qlora results show 3fa9c1d2 --json");
  show->callback([=, &in] { in.work = [=, &in] { return show_run(in, *text); }; });

  CLI::App* query = results->add_subcommand("query", "one SELECT, read-only");
  query->add_option("sql", *text, "the statement")->required();
  query->footer(
      "Examples:\n  qlora results query \"SELECT name, loss_after FROM leaderboard\"\n"
      "  qlora results query \"SELECT name FROM sqlite_schema\" --json");
  query->callback([=, &in] { in.work = [=, &in] { return run_sql(in, *text); }; });

  for (CLI::App* verb : {board, show, query}) {
    add_db_option(*verb, in);
    add_json_flag(*verb, in);
  }
}

}  // namespace qlora
