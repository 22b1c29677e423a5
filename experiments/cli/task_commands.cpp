// qlora eval list, and qlora eval TASK for every task of the registry.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/cli/asked_model.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/harness_info.h"
#include "experiments/cli/loaded_model.h"
#include "experiments/cli/scored_subject.h"
#include "experiments/eval_rows.h"
#include "experiments/score_runs.h"
#include "results/store.h"

namespace qlora {
namespace {

struct TaskArguments {
  ModelArguments model;
  std::string data, output;
  TaskOptions options;
  std::vector<std::string> runs;
  std::string memory = "80%";
  bool no_store = false;
};

std::string metrics_of(const Task& task) {
  std::string names;
  for (const Metric& m : task.metrics) {
    const std::string name = m.filter == "none" ? m.name : m.name + "[" + m.filter + "]";
    names += (names.empty() ? "" : ", ") + name;
  }
  return names;
}

int list(const Invocation& in) {
  Table table;
  table.columns = {"task", "version", "protocol", "kind", "shots", "metrics", "about"};
  for (const Task& task : tasks())
    table.rows.push_back({task.name, task.version, task.protocol, std::string(name_of(task.kind)), task.shots,
                          metrics_of(task), task.about});
  table.rows.push_back(
      {"mmlu", "", "hendrycks", "choice", int64_t{5}, "acc, acc_macro", "57 subjects, multiple choice"});
  fmt::print("{}", in.json ? render_json(table) : render_text(table, {.max_width = 0}));
  return 0;
}

Json report_json(const Task& task, const TaskData& data, const TaskPlan& plan, const TaskReport& report,
                 const SubjectModel& subject, const EvalJob& job) {
  Json scores = Json::array();
  for (const TaskScore& s : report.scores)
    scores.push_back({{"metric", s.metric},
                      {"filter", s.filter},
                      {"group", s.group},
                      {"value", s.value},
                      {"standard_error", s.standard_error ? Json(*s.standard_error) : Json(nullptr)},
                      {"n", s.n}});
  return {{"task", task.name},
          {"version", task.version},
          {"subject", subject.name},
          {"quant", subject.quant},
          {"key", hex(job.key)},
          {"protocol", parse_json(job.protocol, "protocol")},
          {"data", data.path.string()},
          {"data_sha256", data.content_hash},
          {"items", plan.asked.size()},
          {"partial", plan.partial},
          {"requests", plan.requests.size()},
          {"request_sha256", plan.request_hash},
          {"cut_requests", plan.cut},
          {"longest_request", plan.longest},
          {"scores", scores}};
}

void print_report(const Task& task, const TaskPlan& plan, const TaskReport& report,
                  const SubjectModel& subject) {
  Table table;
  table.columns = {"part", "metric", "filter", "value", "se", "n"};
  for (const TaskScore& s : report.scores)
    table.rows.push_back({s.group.empty() ? "all" : s.group, s.metric, s.filter, s.value,
                          s.standard_error ? Value(*s.standard_error) : Value(), s.n});
  fmt::print("{} ({}), {} version {}, {} shots{}\n{}", subject.name, subject.quant, task.name, task.version,
             plan.shots, plan.partial ? ", partial" : "", render_text(table));
  if (plan.cut > 0)
    fmt::print("{} of {} requests were too long and lost their beginning\n", plan.cut, plan.requests.size());
}

int score(const Invocation& in, const Task& task, const TaskArguments& arguments) {
  const std::string started = now_utc();
  const auto begin = std::chrono::steady_clock::now();
  const TaskData data = read_task(task, arguments.data, arguments.options);
  LoadedModel loaded(arguments.model, in.backend, in.threads);
  // Before the long part, so that a store that cannot be written costs nothing.
  std::optional<Store> store;
  if (!arguments.no_store) store = Store::open(in.db);
  const int64_t context = loaded.model()->config().max_positions;
  const TaskPlan plan = plan_task(task, data, arguments.options, loaded.tokenizer(), context);
  const ContentHashes content{model_content_hash(arguments.model.model), loaded.tokenizer().content_hash(),
                              ""};
  const Digest base = base_key(loaded.config(), content);
  EvalJob job;
  job.task = task.name;
  job.protocol = task_protocol(task, data, arguments.options);
  job.data = data.path.string();
  job.data_hash = data.content_hash;
  const SubjectModel subject =
      scored_subject(store ? &*store : nullptr, arguments.model, loaded.config(), base, job.step);
  job.key = evaluation_key(subject.key, job.step, job.task, job.protocol, job.data_hash);
  TaskReport report;
  ask_model(loaded, store ? &*store : nullptr, job.key, task.name, in.json, [&](Lm& lm, SubjectIndex who) {
    report = run_task(lm, loaded.tokenizer(), task, data, plan, std::span(&who, 1)).at(0);
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (store) store->write_evaluation(task_row(job, subject, task, data, report, started, seconds));
  if (!arguments.output.empty()) {
    const HarnessTask one{&task, &data, &plan, &report};
    HarnessInfo info = harness_info(arguments.model, loaded, started, seconds);
    info.limit = arguments.options.limit;
    write_harness_files(arguments.output, info, std::span(&one, 1));
  }
  if (in.json) {
    fmt::print("{}\n", report_json(task, data, plan, report, subject, job).dump(1));
  } else {
    print_report(task, plan, report, subject);
  }
  return 0;
}

// Trained runs of the store, or one model.
int score_task(const Invocation& in, const Task& task, const TaskArguments& arguments) {
  if (arguments.runs.empty()) {
    QLORA_CHECK(!arguments.model.model.empty(), usage, "eval {}: --model DIR or --runs is required",
                task.name);
    return score(in, task, arguments);
  }
  check_runs_alone(arguments.model, arguments.no_store);
  QLORA_CHECK(arguments.output.empty(), usage, "--runs: --output is for one model");
  EvalSpec eval;
  eval.task = task.name;
  eval.data = arguments.data;
  eval.options = arguments.options;
  return score_runs({.db = in.db,
                     .runs = arguments.runs,
                     .eval = eval,
                     .memory = arguments.memory,
                     .backend = in.backend,
                     .threads = in.threads,
                     .json = in.json});
}

void add_task(CLI::App& eval, Invocation& in, const Task& task) {
  auto arguments = std::make_shared<TaskArguments>();
  TaskOptions& options = arguments->options;
  CLI::App* verb = eval.add_subcommand(task.name, task.about);
  add_model_options(*verb, arguments->model);
  add_scored_runs_options(*verb, arguments->runs, arguments->memory);
  verb->add_option(
          "--data", arguments->data,
          task.folder ? "the folder" : "a file, or a folder with " + task.name + ".jsonl or the like")
      ->required();
  verb->add_option("--limit", options.limit, "the first so many questions; 0: all")
      ->check(CLI::NonNegativeNumber);
  if (task.takes_shots) {
    verb->add_option("--shots", options.shots,
                     fmt::format("examples before a question (default {})", task.shots))
        ->check(CLI::NonNegativeNumber);
    verb->add_option("--examples", options.examples,
                     "the file of examples, of which the first are taken (default: " + task.name +
                         "_train beside the data)");
  }
  if (task.folder)
    verb->add_option("--parts", options.groups, "only these parts of the task")->delimiter(',');
  verb->add_option("--max-length", options.max_length, "tokens of a request (default: the model's)")
      ->check(CLI::PositiveNumber);
  if (task.kind == TaskKind::rolling)
    verb->add_option("--stride", options.stride, "tokens that each window adds (default: all of it)")
        ->check(CLI::PositiveNumber);
  if (task.kind == TaskKind::generate)
    verb->add_option("--max-new-tokens", options.max_new_tokens,
                     fmt::format("of an answer (default {})", task.max_new_tokens))
        ->check(CLI::PositiveNumber);
  verb->add_option("--output", arguments->output,
                   "also write results_*.json and samples_*.jsonl of lm-evaluation-harness' layout here");
  verb->add_flag("--no-store", arguments->no_store, "do not write the result into --db");
  add_db_option(*verb, in);
  add_compute_options(*verb, in);
  add_json_flag(*verb, in);
  verb->footer(
      fmt::format("Examples:\n  qlora eval {0} --model DIR --data DIR --limit 100\n"
                  "  qlora eval {0} --runs sweep=NAME --data DIR",
                  task.name));
  verb->callback([=, &in, &task] { in.work = [=, &in, &task] { return score_task(in, task, *arguments); }; });
}

}  // namespace

void add_task_commands(CLI::App& eval, Invocation& in) {
  CLI::App* all = eval.add_subcommand("list", "the tasks that there are");
  add_json_flag(*all, in);
  all->callback([&in] { in.work = [&in] { return list(in); }; });
  for (const Task& task : tasks()) add_task(eval, in, task);
}

}  // namespace qlora
