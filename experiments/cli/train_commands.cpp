// qlora train, qlora sweep run|status, and the hidden qlora worker.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/cli/cli.h"
#include "experiments/place.h"
#include "experiments/scheduler.h"
#include "experiments/tournament.h"
#include "experiments/worker.h"
#include "kernels/backend.h"
#include "results/store.h"

namespace qlora {
namespace {

struct RunArguments {
  std::string file;
  std::vector<std::string> sets;
  std::string memory = {};
  bool dry_run = false, retry_failed = false, quiet = false, no_cache = false;
};

// What the pack that takes most of a GPU's memory takes there and of the host's.
void print_memory(const Place& place, const std::vector<PlannedPack>& packs) {
  const auto most = std::max_element(
      packs.begin(), packs.end(),
      [](const PlannedPack& a, const PlannedPack& b) { return a.memory.bytes() < b.memory.bytes(); });
  if (most == packs.end()) return;
  for (const std::string& line : describe_memory(place, most->memory)) fmt::print("{}\n", line);
}

int run_file(const CLI::App& app, const RunArguments& arguments, const Invocation& in, bool one_run) {
  std::vector<std::string> sets = arguments.sets;
  if (arguments.no_cache) sets.emplace_back("base_cache=false");
  Sweep sweep = read_sweep(arguments.file, assignments(app, std::move(sets)));
  QLORA_CHECK(!one_run || sweep.runs.size() == 1, usage, "{} describes {} runs: use `qlora sweep run`",
              arguments.file, sweep.runs.size());
  if (one_run && sweep.evals.empty() && sweep.runs[0].config.integer("eval_dataset_size") > 0) {
    EvalSpec loss;
    loss.task = "loss";
    loss.at_start = loss.at_end = true;
    sweep.evals.push_back(loss);
  }
  SweepOptions options{in.db,   in.backend,      in.threads, arguments.memory, arguments.retry_failed,
                       in.json, arguments.quiet, in.program, one_run};
  if (!arguments.dry_run) return run_sweep(sweep, options);
  const Place place = place_of(options.backend, options.memory);
  const size_t budget = place.budget;
  Planner planner(place.device);
  std::optional<Store> store = Store::open_if_filled(options.db);
  WorkPlan plan = plan_work(planner, sweep, store ? &*store : nullptr, budget);
  mark_done(plan, store ? &*store : nullptr, options.retry_failed);
  read_tournaments_of(sweep.tournaments);
  if (in.json) {
    fmt::print("{}\n", plan_json(sweep, plan, pack_work(planner, plan, budget), budget));
    return 0;
  }
  if (one_run) fmt::print("{}\n", print_config(plan.runs[0].config, sweep.runs[0].settings));
  fmt::print("{}", describe_plan(sweep, plan, budget));
  for (const std::string& line : describe_settings(plan)) fmt::print("{}\n", line);
  std::fflush(stdout);
  if (!place.note.empty()) fmt::print("{}\n", place.note);
  // Refuses what the real run would refuse.
  const std::vector<PlannedPack> packs = pack_work(planner, plan, budget);
  print_memory(place, packs);
  for (const std::string& line : describe_choices(packs)) fmt::print("{}\n", line);
  return 0;
}

void add_run_arguments(CLI::App& app, Invocation& in, RunArguments& arguments) {
  app.add_option("file", arguments.file, "the configuration, YAML")->required();
  app.add_option("--set", arguments.sets, "key=value: overrides the file; may be repeated");
  app.add_flag("--dry-run", arguments.dry_run, "show what would be done, and the memory that it needs");
  app.add_flag("--retry-failed", arguments.retry_failed, "run again what failed before");
  app.add_option(
      "--memory", arguments.memory,
      "what training may use: 12G, 800M, 80% of what is available (which is the default; of a GPU: 95%)");
  app.add_flag("--no-cache", arguments.no_cache,
               "neither use nor keep the quantized base beside the model: base_cache: false");
  app.add_flag("--quiet", arguments.quiet, "no progress");
  add_db_option(app, in);
  add_json_flag(app, in);
  add_compute_options(app, in);
  app.allow_extras();
}

int show_status(const Invocation& in, const std::string& name) {
  Store store = Store::open_read_only(in.db);
  std::vector<std::string> names = name.empty() ? store.sweep_names() : std::vector<std::string>{name};
  QLORA_CHECK(!names.empty(), usage, "{}: no sweep is stored", in.db);
  Table table;
  table.columns = {"sweep", "run", "state", "reason", "step", "loss", "attempts", "key"};
  for (const std::string& sweep : names)
    for (const RunInfo& run : store.sweep_status(sweep).runs) {
      std::vector<Value>& row = table.rows.emplace_back();
      row = {sweep, run.name, std::string(name_of(run.state)), run.reason, run.last_step};
      row.emplace_back();  // no loss yet: NULL
      if (run.last_loss) row.back() = *run.last_loss;
      row.emplace_back(run.attempts);
      row.emplace_back(hex(run.key).substr(0, 12));
    }
  fmt::print("{}", in.json ? render_json(table) : render_text(table));
  return 0;
}

}  // namespace

std::vector<std::string> assignments(const CLI::App& app, std::vector<std::string> sets) {
  const std::vector<std::string> rest = app.remaining();
  for (size_t i = 0; i < rest.size(); ++i) {
    const std::string& word = rest[i];
    QLORA_CHECK(word.starts_with("--") && word.size() > 2, usage, "unexpected argument `{}`", word);
    if (word.find('=') != std::string::npos) {
      sets.push_back(word.substr(2));
      continue;
    }
    QLORA_CHECK(i + 1 < rest.size(), usage, "{} needs a value", word);
    sets.push_back(word.substr(2) + "=" + rest[++i]);
  }
  return sets;
}

void add_train_commands(CLI::App& app, Invocation& in) {
  auto arguments = std::make_shared<RunArguments>();
  CLI::App* train = app.add_subcommand("train", "train one run");
  add_run_arguments(*train, in, *arguments);
  train->footer(
      "Every option of a run may be given as --key value; a list of them: qlora doctor --options\n"
      "Examples:\n  qlora train run.yaml --dry-run\n  qlora train run.yaml --lora_r 16 --learning_rate 1e-4");
  train->callback([=, &in] { in.work = [=, &in] { return run_file(*train, *arguments, in, true); }; });

  CLI::App* sweep = app.add_subcommand("sweep", "train and score many runs");
  sweep->require_subcommand(1);
  sweep->footer(group_footer("  qlora sweep run experiments/configs/quickstart.yaml\n  qlora sweep status"));
  CLI::App* run = sweep->add_subcommand("run", "do what is not done yet; again after a stop or a crash");
  add_run_arguments(*run, in, *arguments);
  run->footer(
      "Examples:\n  qlora sweep run experiments/configs/quickstart.yaml --dry-run\n"
      "  qlora sweep run sweep.yaml --set max_steps=100 --set 'seed=[1, 2, 3]'");
  run->callback([=, &in] { in.work = [=, &in] { return run_file(*run, *arguments, in, false); }; });

  auto name = std::make_shared<std::string>();
  CLI::App* status = sweep->add_subcommand("status", "states of the runs of a sweep, or of all");
  status->add_option("name", *name, "the sweep's name");
  add_db_option(*status, in);
  add_json_flag(*status, in);
  status->footer("Examples:\n  qlora sweep status\n  qlora sweep status quickstart --json");
  status->callback([=, &in] { in.work = [=, &in] { return show_status(in, *name); }; });

  auto job = std::make_shared<std::string>();
  auto fd = std::make_shared<int>(-1);
  CLI::App* worker = app.add_subcommand("worker", "does one pack of a sweep; started by `sweep run`");
  worker->group("");  // hidden
  worker->add_option("--job", *job)->required();
  worker->add_option("--fd", *fd)->required();
  worker->callback([=, &in] { in.work = [=] { return worker_main(*job, *fd); }; });
}

}  // namespace qlora
