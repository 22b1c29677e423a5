// qlora eval mmlu; the other tasks are in task_commands.cpp.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/models/hf_config.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "eval/tasks/mmlu_rows.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/score_command.h"
#include "experiments/spec.h"

namespace qlora {
namespace {

struct MmluArguments {
  ScoreArguments score;
  EvalSpec eval;
  bool explain = false;
};

// The first prompt as a model gets it, and what was cut from all; no weights are read.
int explain(const Invocation& in, const std::string& model, const EvalSpec& eval) {
  QLORA_CHECK(!model.empty(), usage, "eval mmlu --explain: --model DIR is required");
  const MmluData data = read_mmlu(eval.data, eval.mmlu);
  auto tokenizer = load_tokenizer(model);
  const int64_t context = read_hf_config(Path(model) / "config.json").max_positions;
  const MmluPlan plan = plan_mmlu(data, eval.mmlu, *tokenizer, context);
  if (in.json) {
    fmt::print("{}\n", Json{{"protocol", parse_json(mmlu_protocol(eval.mmlu, is_rendered(data)), "protocol")},
                            {"prompts", plan.items.size()},
                            {"letter_ids", plan.letter_ids},
                            {"letter_tokens", plan.letter_tokens},
                            {"truncated_prompts", plan.truncated_prompts},
                            {"dropped_shots", plan.dropped_shots},
                            {"cut_tokens", plan.cut_tokens},
                            {"max_prompt_tokens", plan.max_prompt_tokens},
                            {"first", explain_mmlu(plan, 0, data, eval.mmlu, *tokenizer)}}
                           .dump(1));
    return 0;
  }
  fmt::print(
      "{}{} prompts, the longest of {} tokens (context {}); {} were too long and lost {} shots and {} "
      "tokens\n",
      explain_mmlu(plan, 0, data, eval.mmlu, *tokenizer), plan.items.size(), plan.max_prompt_tokens, context,
      plan.truncated_prompts, plan.dropped_shots, plan.cut_tokens);
  for (const MmluItem& item : plan.items)
    if (item.cut_tokens > 0 || item.shots < eval.mmlu.shots)
      fmt::print("  {} row {}: {} shots, {} tokens cut\n", item.subject, item.index + 1, item.shots,
                 item.cut_tokens);
  return 0;
}

}  // namespace

void add_eval_commands(CLI::App& app, Invocation& in) {
  CLI::App* eval = app.add_subcommand("eval", "score a model");
  eval->require_subcommand(1);
  eval->footer(
      group_footer("  qlora eval list\n  qlora eval mnli,rte,boolq --model DIR --data DIR\n"
                   "  qlora eval mmlu --runs sweep=NAME --data TREE --shots 5"));
  auto arguments = std::make_shared<MmluArguments>();
  CLI::App* mmlu = eval->add_subcommand("mmlu", "multiple-choice questions, in the layout of hendrycks/test");
  arguments->eval.task = "mmlu";
  MmluOptions& options = arguments->eval.mmlu;
  add_score_options(*mmlu, in, arguments->score);
  mmlu->add_option("--data", arguments->eval.data, "the tree with dev/ and test/ or val/, or a file of rows")
      ->required();
  mmlu->add_option("--protocol", options.protocol, "how to ask and to score")
      ->check(CLI::IsMember(mmlu_protocol_names()));
  CLI::Option* split =
      mmlu->add_option("--split", options.split,
                       "which questions (default: test; rendered prompts: what their file's name says)")
          ->check(CLI::IsMember({"test", "val"}));
  mmlu->add_option("--shots", options.shots, "examples before a question")->check(CLI::Range(0, 5));
  mmlu->add_option("--limit", options.limit, "questions of a subject; 0: all")->check(CLI::NonNegativeNumber);
  mmlu->add_option("--subjects", options.subjects, "only these")->delimiter(',');
  mmlu->add_option("--samples", options.samples, "questions in all; 0: all")->check(CLI::NonNegativeNumber);
  mmlu->add_option("--max-length", options.max_length, "tokens of a prompt (default: the protocol's)")
      ->check(CLI::PositiveNumber);
  mmlu->add_option("--bos", options.bos, "the token of beginning: as the protocol has it, or")
      ->check(CLI::IsMember(mmlu_bos_rules()));
  mmlu->add_option("--chat-template", options.chat_template, "ask in a conversation; own (auto): the model's")
      ->transform([](const std::string& name) { return name == "auto" ? kOwnChatTemplate : name; })
      ->check(CLI::IsMember(mmlu_chat_templates()));
  mmlu->add_flag_function(
      "--fewshot-as-multiturn,!--no-fewshot-as-multiturn",
      [&options](int64_t given) { options.fewshot_as_multiturn = given > 0; },
      "with a template: examples are turns of the conversation, or not (default: as the protocol has it)");
  mmlu->add_option("--system-instruction", options.system_instruction, "text before everything");
  mmlu->add_flag("--explain", arguments->explain,
                 "print the first prompt, the answer tokens and what was cut; score nothing");
  mmlu->footer(
      "Examples:\n  qlora eval mmlu --model DIR --adapter DIR --data datasets/samples/mmlu --shots 5\n"
      "  qlora eval mmlu --runs sweep=NAME --data DIR --shots 5");
  mmlu->callback([=, &in] {
    in.work = [=, &in] {
      MmluOptions& asked = arguments->eval.mmlu;
      if (split->count() == 0) asked.split = rendered_split(arguments->eval.data, asked);
      return arguments->explain ? explain(in, arguments->score.model.model, arguments->eval)
                                : score(in, arguments->score, {arguments->eval});
    };
  });
  add_data_type_command(*eval, in);
  add_task_commands(*eval, in);
}

}  // namespace qlora
