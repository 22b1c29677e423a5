// qlora eval list, qlora eval TASK for every task of the registry, and several of them together.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include "core/base/check.h"
#include "eval/tasks/mmlu_rows.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/score_command.h"
#include "results/table.h"

namespace qlora {
namespace {

struct TaskArguments {
  ScoreArguments score;
  EvalSpec eval;
};

int list(const Invocation& in) {
  Table table;
  table.columns = {"task", "version", "protocol", "kind", "shots", "metrics", "about"};
  for (const ListedTask& task : listed_tasks())
    table.rows.push_back({task.name, task.version, task.protocol, std::string(name_of(task.kind)), task.shots,
                          fmt::format("{}", fmt::join(task.metrics, ", ")), task.about});
  fmt::print("{}", in.json ? render_json(table) : render_text(table, {.max_width = 0}));
  return 0;
}

void add_fewshot_options(CLI::App& verb, TaskOptions& options) {
  verb.add_option("--fewshot-sampler", options.fewshot_sampler,
                  "lm_eval: others for every question, drawn as lm-evaluation-harness does it (default where "
                  "it has the task); first_n: the first of their file")
      ->check(CLI::IsMember({"first_n", "lm_eval"}));
  verb.add_option("--fewshot-seed", options.fewshot_seed, "of the draws")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void add_task(CLI::App& eval, Invocation& in, const Task& task) {
  auto arguments = std::make_shared<TaskArguments>();
  arguments->eval.task = task.name;
  TaskOptions& options = arguments->eval.options;
  CLI::App* verb = eval.add_subcommand(task.name, task.about);
  add_score_options(*verb, in, arguments->score);
  verb->add_option(
          "--data", arguments->eval.data,
          task.folder ? "the folder" : "a file, or a folder with " + task.name + ".jsonl or the like")
      ->required();
  verb->add_option("--limit", options.limit,
                   task.folder ? "the first so many questions of each part of the task; 0: all"
                               : "the first so many questions; 0: all")
      ->check(CLI::NonNegativeNumber);
  if (task.takes_shots) {
    verb->add_option("--shots", options.shots,
                     fmt::format("examples before a question (default {})", task.shots))
        ->check(CLI::NonNegativeNumber);
    verb->add_option("--examples", options.examples,
                     "the file of examples (default: " + task.name + "_train beside the data)");
    add_fewshot_options(*verb, options);
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
  verb->footer(
      fmt::format("Examples:\n  qlora eval {0} --model DIR --data DIR --limit 100\n"
                  "  qlora eval {0} --runs sweep=NAME --data DIR",
                  task.name));
  verb->callback([=, &in] { in.work = [=, &in] { return score(in, arguments->score, {arguments->eval}); }; });
}

struct SeveralArguments {
  ScoreArguments score;
  std::vector<std::string> tasks, data;
  int64_t shots = -1, limit = 0, max_length = 0, max_new_tokens = 0;
  TaskOptions fewshot;  // the choice of examples
  MmluOptions mmlu;
  CLI::Option* split = nullptr;
};

// The path for each task: TASK=PATH, or the one path without a name.
std::string data_of(const SeveralArguments& arguments, const std::string& task) {
  std::string common;
  for (const std::string& given : arguments.data) {
    const size_t equals = given.find('=');
    const std::string name = equals == std::string::npos ? "" : given.substr(0, equals);
    if (name == task) return given.substr(equals + 1);
    const auto& asked = arguments.tasks;
    if (std::find(asked.begin(), asked.end(), name) != asked.end()) continue;
    QLORA_CHECK(common.empty(), usage, "--data: `{}` and `{}` are for all tasks; TASK=PATH is for one",
                common, given);
    common = given;
  }
  QLORA_CHECK(!common.empty(), usage, "--data: nothing for task {}; give {}=PATH, or a path for all", task,
              task);
  return common;
}

EvalSpec spec_of(const SeveralArguments& arguments, const std::string& task) {
  EvalSpec eval;
  eval.task = task;
  eval.data = data_of(arguments, task);
  if (task == "mmlu") {
    eval.mmlu = arguments.mmlu;
    if (arguments.shots >= 0) eval.mmlu.shots = arguments.shots;
    eval.mmlu.limit = arguments.limit;
    eval.mmlu.max_length = arguments.max_length;
    if (arguments.split->count() == 0) eval.mmlu.split = rendered_split(eval.data, eval.mmlu);
    return eval;
  }
  const Task& known = find_task(task);
  eval.options.shots = known.takes_shots ? arguments.shots : -1;
  if (known.takes_shots && known.protocol == "lm_eval")
    eval.options.fewshot_sampler = arguments.fewshot.fewshot_sampler;
  eval.options.fewshot_seed = arguments.fewshot.fewshot_seed;
  eval.options.limit = arguments.limit;
  eval.options.max_length = arguments.max_length;
  if (known.kind == TaskKind::generate) eval.options.max_new_tokens = arguments.max_new_tokens;
  return eval;
}

int score_several(const Invocation& in, const SeveralArguments& arguments) {
  std::vector<EvalSpec> evals;
  for (const std::string& task : arguments.tasks) evals.push_back(spec_of(arguments, task));
  return score(in, arguments.score, evals);
}

void add_several(CLI::App& eval, Invocation& in) {
  auto arguments = std::make_shared<SeveralArguments>();
  CLI::App* verb = eval.add_subcommand("tasks", "several tasks together; also `qlora eval TASK,TASK`");
  verb->add_option("tasks", arguments->tasks, "names of `qlora eval list`, mmlu too")
      ->delimiter(',')
      ->required();
  add_score_options(*verb, in, arguments->score);
  verb->add_option("--data", arguments->data,
                   "a folder with files of all tasks, and TASK=PATH for single ones")
      ->required();
  verb->add_option("--limit", arguments->limit,
                   "the first so many questions of each (mmlu: of a subject, bbh: of a part); 0: all")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--shots", arguments->shots, "examples before a question, of tasks that take them")
      ->check(CLI::NonNegativeNumber);
  add_fewshot_options(*verb, arguments->fewshot);
  verb->add_option("--max-length", arguments->max_length, "tokens of a request (default: the model's)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--max-new-tokens", arguments->max_new_tokens, "of answers that are generated")
      ->check(CLI::PositiveNumber);
  verb->add_option("--protocol", arguments->mmlu.protocol, "of mmlu")
      ->check(CLI::IsMember(mmlu_protocol_names()));
  arguments->split =
      verb->add_option("--split", arguments->mmlu.split, "of mmlu")->check(CLI::IsMember({"test", "val"}));
  verb->footer(
      "Examples:\n  qlora eval mnli,rte,boolq --model DIR --data DIR\n"
      "  qlora eval rte,mmlu --runs sweep=NAME --data DIR --data mmlu=TREE --shots 5");
  verb->callback([=, &in] { in.work = [=, &in] { return score_several(in, *arguments); }; });
}

}  // namespace

void add_task_commands(CLI::App& eval, Invocation& in) {
  CLI::App* all = eval.add_subcommand("list", "the tasks that there are");
  add_json_flag(*all, in);
  all->callback([&in] { in.work = [&in] { return list(in); }; });
  add_several(eval, in);
  for (const Task& task : tasks()) add_task(eval, in, task);
}

}  // namespace qlora
