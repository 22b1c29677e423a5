// qlora eval mmlu; the other tasks are in task_commands.cpp.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/models/hf_config.h"
#include "eval/tasks/mmlu_harness.h"
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

struct MmluArguments {
  ModelArguments model;
  std::string data, output;
  MmluOptions options;
  std::vector<std::string> runs;
  std::string memory = "80%";
  bool no_store = false, explain = false;
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
  Json groups = Json::object();
  for (const auto& [name, accuracy] : report.groups) groups[name] = accuracy_json(accuracy);
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
          {"answer_loss", report.answer_loss ? accuracy_json(*report.answer_loss) : Json(nullptr)},
          {"subjects", subjects},
          {"groups", groups},
          {"letter_ids", report.letter_ids},
          {"truncated_prompts", report.truncated_prompts},
          {"dropped_shots", report.dropped_shots},
          {"cut_tokens", report.cut_tokens},
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
  for (const auto& [name, accuracy] : report.groups) add(name, accuracy);
  add("all questions (micro)", report.micro);
  add("mean of subjects (macro)", report.macro);
  if (report.answer_loss) add("loss of letter and EOS", *report.answer_loss);
  fmt::print("{} ({}), MMLU {} {}, {} shots{}\n{}", subject.name, subject.quant, arguments.options.protocol,
             arguments.options.split, arguments.options.shots, report.partial ? ", partial" : "",
             render_text(table));
  if (report.macro_first)
    fmt::print("note: protocol {} publishes the mean of subjects\n", arguments.options.protocol);
  if (report.truncated_prompts > 0)
    fmt::print("{} prompts were too long and lost {} shots and {} tokens\n", report.truncated_prompts,
               report.dropped_shots, report.cut_tokens);
  for (const std::string& warning : report.warnings) fmt::print("note: {}\n", warning);
}

// The first prompt as a model gets it, and what was cut from all; no weights are read.
int explain(const Invocation& in, const MmluArguments& arguments) {
  QLORA_CHECK(!arguments.model.model.empty(), usage, "eval mmlu --explain: --model DIR is required");
  const MmluData data = read_mmlu(arguments.data, arguments.options);
  auto tokenizer = load_tokenizer(arguments.model.model);
  const int64_t context = read_hf_config(Path(arguments.model.model) / "config.json").max_positions;
  const MmluPlan plan = plan_mmlu(data, arguments.options, *tokenizer, context);
  if (in.json) {
    fmt::print("{}\n", Json{{"protocol", parse_json(mmlu_protocol(arguments.options), "protocol")},
                            {"prompts", plan.items.size()},
                            {"letter_ids", plan.letter_ids},
                            {"letter_tokens", plan.letter_tokens},
                            {"truncated_prompts", plan.truncated_prompts},
                            {"dropped_shots", plan.dropped_shots},
                            {"cut_tokens", plan.cut_tokens},
                            {"max_prompt_tokens", plan.max_prompt_tokens},
                            {"first", explain_mmlu(plan, 0, data, arguments.options, *tokenizer)}}
                           .dump(1));
    return 0;
  }
  fmt::print(
      "{}{} prompts, the longest of {} tokens (context {}); {} were too long and lost {} shots and {} "
      "tokens\n",
      explain_mmlu(plan, 0, data, arguments.options, *tokenizer), plan.items.size(), plan.max_prompt_tokens,
      context, plan.truncated_prompts, plan.dropped_shots, plan.cut_tokens);
  for (const MmluItem& item : plan.items)
    if (item.cut_tokens > 0 || item.shots < arguments.options.shots)
      fmt::print("  {} row {}: {} shots, {} tokens cut\n", item.subject, item.index + 1, item.shots,
                 item.cut_tokens);
  return 0;
}

int score(const Invocation& in, const MmluArguments& arguments) {
  std::string started = now_utc();
  auto begin = std::chrono::steady_clock::now();
  MmluData data = read_mmlu(arguments.data, arguments.options);
  LoadedModel loaded(arguments.model, in.backend, in.threads);
  // Before the long part, so that a store that cannot be written costs nothing.
  std::optional<Store> store;
  if (!arguments.no_store) store = Store::open(in.db);
  ContentHashes content{model_content_hash(arguments.model.model), loaded.tokenizer().content_hash(), ""};
  Digest base = base_key(loaded.config(), content);
  EvalJob job{
      {}, "mmlu", 0, mmlu_protocol(arguments.options), arguments.data, data.content_hash, arguments.options};
  SubjectModel subject =
      scored_subject(store ? &*store : nullptr, arguments.model, loaded.config(), base, job.step);
  job.key = evaluation_key(subject.key, job.step, job.task, job.protocol, job.data_hash);
  MmluReport report;
  ask_model(loaded, store ? &*store : nullptr, job.key, "mmlu", in.json, [&](Lm& lm, SubjectIndex who) {
    report = run_mmlu(lm, loaded.tokenizer(), data, arguments.options, std::span(&who, 1)).at(0);
  });
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (store) store->write_evaluation(mmlu_row(job, subject, report, started, seconds));
  if (!arguments.output.empty()) {
    HarnessInfo info = harness_info(arguments.model, loaded, started, seconds);
    info.limit = arguments.options.limit;
    if (arguments.options.chat_template != "none") info.chat_template = arguments.options.chat_template;
    info.system_instruction = arguments.options.system_instruction;
    info.fewshot_as_multiturn = arguments.options.fewshot_as_multiturn;
    const MmluHarness mmlu =
        mmlu_harness(arguments.data, data, arguments.options, loaded.tokenizer(), report);
    const HarnessTask view = mmlu.view();
    write_harness_files(arguments.output, info, std::span(&view, 1));
  }
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
  check_runs_alone(m, arguments.no_store);
  QLORA_CHECK(arguments.output.empty(), usage, "--runs: --output writes the files of one model");
  EvalSpec eval;
  eval.task = "mmlu";
  eval.data = arguments.data;
  eval.mmlu = arguments.options;
  return score_runs({.db = in.db,
                     .runs = arguments.runs,
                     .eval = eval,
                     .memory = arguments.memory,
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
  add_scored_runs_options(*mmlu, arguments->runs, arguments->memory);
  mmlu->add_option("--data", arguments->data, "the tree with dev/ and test/ or val/, or a file of rows")
      ->required();
  mmlu->add_option("--protocol", arguments->options.protocol, "how to ask and to score")
      ->check(CLI::IsMember(mmlu_protocol_names()));
  mmlu->add_option("--split", arguments->options.split, "which questions")
      ->check(CLI::IsMember({"test", "val"}));
  mmlu->add_option("--shots", arguments->options.shots, "examples before a question")
      ->check(CLI::Range(0, 5));
  mmlu->add_option("--limit", arguments->options.limit, "questions of a subject; 0: all")
      ->check(CLI::NonNegativeNumber);
  mmlu->add_option("--subjects", arguments->options.subjects, "only these")->delimiter(',');
  mmlu->add_option("--samples", arguments->options.samples, "questions in all; 0: all")
      ->check(CLI::NonNegativeNumber);
  mmlu->add_option("--max-length", arguments->options.max_length,
                   "tokens of a prompt (default: the protocol's)")
      ->check(CLI::PositiveNumber);
  mmlu->add_option("--bos", arguments->options.bos, "the token of beginning: as the protocol has it, or")
      ->check(CLI::IsMember(mmlu_bos_rules()));
  mmlu->add_option("--chat-template", arguments->options.chat_template,
                   "ask in a conversation; own: the model's")
      ->check(CLI::IsMember(mmlu_chat_templates()));
  mmlu->add_flag("--fewshot-as-multiturn", arguments->options.fewshot_as_multiturn,
                 "with a template: examples are turns of the conversation");
  mmlu->add_option("--system-instruction", arguments->options.system_instruction, "text before everything");
  mmlu->add_flag("--explain", arguments->explain,
                 "print the first prompt, the answer tokens and what was cut; score nothing");
  mmlu->add_option("--output", arguments->output,
                   "also write results_*.json and samples_*.jsonl of lm-evaluation-harness' layout here");
  mmlu->add_flag("--no-store", arguments->no_store, "do not write the result into --db");
  add_db_option(*mmlu, in);
  add_compute_options(*mmlu, in);
  add_json_flag(*mmlu, in);
  mmlu->footer(
      "Examples:\n  qlora eval mmlu --model DIR --data datasets/samples/mmlu --shots 5\n"
      "  qlora eval mmlu --model DIR --adapter DIR --data DIR --subjects astronomy,anatomy --json\n"
      "  qlora eval mmlu --runs sweep=NAME --data DIR --shots 5");
  mmlu->callback([=, &in] {
    in.work = [=, &in] { return arguments->explain ? explain(in, *arguments) : score_mmlu(in, *arguments); };
  });
  add_data_type_command(*eval, in);
  add_task_commands(*eval, in);
}

}  // namespace qlora
