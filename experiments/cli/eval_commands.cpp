// qlora eval mmlu; the other tasks are in task_commands.cpp.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/cli/cli.h"
#include "experiments/cli/loaded_model.h"
#include "experiments/cli/scored_subject.h"
#include "experiments/eval_rows.h"
#include "experiments/score_runs.h"
#include "experiments/terminal.h"
#include "results/store.h"

namespace qlora {
namespace {

struct MmluArguments {
  ModelArguments model;
  std::string data;
  MmluOptions options;
  std::vector<std::string> runs;
  bool no_store = false;
};

Json accuracy_json(const Accuracy& a) {
  return {{"value", a.value},
          {"standard_error", a.standard_error ? Json(*a.standard_error) : Json(nullptr)},
          {"n", a.n}};
}

Json report_json(const MmluReport& report, const SubjectModel& subject, const MmluArguments& arguments,
                 const Digest& key) {
  Json subjects = Json::object();
  for (const auto& [name, accuracy] : report.subjects) subjects[name] = accuracy_json(accuracy);
  return {{"subject", subject.name},
          {"quant", subject.quant},
          {"protocol", arguments.options.protocol},
          {"split", arguments.options.split},
          {"shots", arguments.options.shots},
          {"limit", arguments.options.limit},
          {"key", hex(key)},
          {"partial", report.partial},
          {"micro", accuracy_json(report.micro)},
          {"macro", accuracy_json(report.macro)},
          {"subjects", subjects},
          {"letter_ids", report.letter_ids},
          {"truncated_prompts", report.truncated_prompts},
          {"dropped_shots", report.dropped_shots},
          {"max_prompt_tokens", report.max_prompt_tokens},
          {"warnings", report.warnings}};
}

void print_report(const MmluReport& report, const SubjectModel& subject, const MmluArguments& arguments) {
  Table table;
  table.columns = {"subject", "accuracy", "se", "n"};
  auto add = [&](const std::string& name, const Accuracy& a) {
    table.rows.push_back({name, a.value, a.standard_error ? Value(*a.standard_error) : Value(), a.n});
  };
  for (const auto& [name, accuracy] : report.subjects) add(name, accuracy);
  add("all questions (micro)", report.micro);
  add("mean of subjects (macro)", report.macro);
  fmt::print("{} ({}), MMLU {} {}, {} shots{}\n{}", subject.name, subject.quant, arguments.options.protocol,
             arguments.options.split, arguments.options.shots, report.partial ? ", partial" : "",
             render_text(table));
  if (report.truncated_prompts > 0)
    fmt::print("{} prompts were too long and lost {} shots\n", report.truncated_prompts,
               report.dropped_shots);
  for (const std::string& warning : report.warnings) fmt::print("note: {}\n", warning);
}

int score(const Invocation& in, const MmluArguments& arguments) {
  std::string started = now_utc();
  auto begin = std::chrono::steady_clock::now();
  MmluData data = read_mmlu(arguments.data, arguments.options);
  LoadedModel loaded(arguments.model, in.backend, in.threads);
  // Before the long part, so that a store that cannot be written costs nothing.
  std::optional<Store> store;
  if (!arguments.no_store) store = Store::open(in.db);
  MmluReport report;
  {
    Progress progress(stderr, in.json, 10);
    ModelLmOptions options;
    options.type = loaded.type();
    options.progress = [&](int64_t done, int64_t all) { progress.phase("mmlu", done, all); };
    std::vector<Adapter*> adapters;
    if (loaded.adapter() != nullptr) adapters.push_back(loaded.adapter());
    SubjectIndex index = adapters.empty() ? -1 : 0;
    auto lm = make_model_lm(loaded.model(), loaded.memory(), adapters, options);
    report = run_mmlu(*lm, loaded.tokenizer(), data, arguments.options, std::span(&index, 1)).at(0);
  }
  ContentHashes content{model_content_hash(arguments.model.model), loaded.tokenizer().content_hash(), ""};
  Digest base = base_key(loaded.config(), content);
  EvalJob job{
      {}, "mmlu", 0, mmlu_protocol(arguments.options), arguments.data, data.content_hash, arguments.options};
  SubjectModel subject =
      scored_subject(store ? &*store : nullptr, arguments.model, loaded.config(), base, job.step);
  job.key = evaluation_key(subject.key, job.step, job.task, job.protocol, job.data_hash);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (store) store->write_evaluation(mmlu_row(job, subject, report, started, seconds));
  if (in.json) {
    fmt::print("{}\n", report_json(report, subject, arguments, job.key).dump(1));
  } else {
    print_report(report, subject, arguments);
  }
  return 0;
}

// Trained runs of the store, or one model.
int score_mmlu(const Invocation& in, const MmluArguments& arguments) {
  const ModelArguments& m = arguments.model;
  if (arguments.runs.empty()) {
    QLORA_CHECK(!m.model.empty(), usage, "eval mmlu: --model DIR or --runs is required");
    return score(in, arguments);
  }
  QLORA_CHECK(m.model.empty() && m.adapter.empty() && m.quant.empty() && m.compute_dtype.empty(), usage,
              "--runs: the runs say which model they stand on; without --model, --adapter, --quant and "
              "--compute-dtype");
  QLORA_CHECK(!arguments.no_store, usage, "--runs: scores of runs go into --db, --no-store does not fit");
  return score_runs({.db = in.db,
                     .runs = arguments.runs,
                     .data = arguments.data,
                     .mmlu = arguments.options,
                     .backend = in.backend,
                     .threads = in.threads,
                     .json = in.json});
}

}  // namespace

void add_eval_commands(CLI::App& app, Invocation& in) {
  CLI::App* eval = app.add_subcommand("eval", "score a model");
  eval->require_subcommand(1);
  auto arguments = std::make_shared<MmluArguments>();
  CLI::App* mmlu = eval->add_subcommand("mmlu", "multiple-choice questions, in the layout of hendrycks/test");
  add_model_options(*mmlu, arguments->model);
  mmlu->get_option("--model")->required(false);
  mmlu->add_option("--runs", arguments->runs,
                   "instead of --model: sweep=NAME, names or keys of trained runs; the base is loaded once")
      ->delimiter(',');
  mmlu->add_option("--data", arguments->data, "the tree with dev/ and test/ or val/")->required();
  mmlu->add_option("--protocol", arguments->options.protocol, "how to ask and to score")
      ->check(CLI::IsMember({"hendrycks"}));
  mmlu->add_option("--split", arguments->options.split, "which questions")
      ->check(CLI::IsMember({"test", "val"}));
  mmlu->add_option("--shots", arguments->options.shots, "examples before a question")
      ->check(CLI::Range(0, 5));
  mmlu->add_option("--limit", arguments->options.limit, "questions of a subject; 0: all")
      ->check(CLI::NonNegativeNumber);
  mmlu->add_option("--subjects", arguments->options.subjects, "only these")->delimiter(',');
  mmlu->add_flag("--no-store", arguments->no_store, "do not write the result into --db");
  add_db_option(*mmlu, in);
  add_compute_options(*mmlu, in);
  add_json_flag(*mmlu, in);
  mmlu->footer(
      "Examples:\n  qlora eval mmlu --model DIR --data datasets/samples/mmlu --shots 5\n"
      "  qlora eval mmlu --model DIR --adapter DIR --data DIR --subjects astronomy,anatomy --json\n"
      "  qlora eval mmlu --runs sweep=NAME --data DIR --shots 5");
  mmlu->callback([=, &in] { in.work = [=, &in] { return score_mmlu(in, *arguments); }; });
  add_task_commands(*eval, in);
}

}  // namespace qlora
