// qlora judge run.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/text/chat_template.h"
#include "experiments/cli/cli.h"
#include "experiments/judge_study.h"
#include "experiments/judging.h"
#include "experiments/terminal.h"

namespace qlora {
namespace {

struct RunOptions {
  std::vector<std::string> answers;
  std::string questions, out;
  JudgeSetup setup;
  bool stored = false, dry = false;
};

Json report_json(const JudgeRunReport& r) {
  return {{"asked", r.asked},
          {"answered", r.answered},
          {"invalid", r.invalid},
          {"failed", r.failed},
          {"left", r.left},
          {"requests", r.requests},
          {"prompt_tokens", r.prompt_tokens},
          {"answer_tokens", r.answer_tokens},
          {"money", r.money},
          {"stopped", r.stopped}};
}

int judge_run(const Invocation& in, const RunOptions& options) {
  AnswerBook book;
  JudgeStudy study = study_of(options.setup);
  for (const std::string& path : options.answers) study.systems.push_back(book.add(path));
  study.questions = read_judge_questions(options.questions);
  const std::vector<JudgeAsk> all = plan_study(study, book);
  JudgeJournal journal(options.out);
  const std::vector<JudgeAsk> asks = journal.missing(all);
  if (!options.dry && !asks.empty()) check_can_ask(options.setup);
  const int64_t others = options.dry ? journal.other_votes(all) : journal.set_aside_other_votes(all);
  if (others > 0) fmt::print(stderr, "{}\n", about_other_votes(others, options.out));
  if (options.dry) {
    size_t bytes = 0;
    for (const JudgeAsk& ask : asks) bytes += ask.request.system.size() + ask.request.user.size();
    if (in.json) {
      const Json plan = {
          {"dry_run", true},       {"questions", all.size()},          {"missing", asks.size()},
          {"prompt_bytes", bytes}, {"about_prompt_tokens", bytes / 4}, {"other_votes", others}};
      fmt::print("{}\n", plan.dump(1));
      return 0;
    }
    fmt::print("{} of {} questions to the judge are missing; their prompts are {} bytes, about {} tokens\n",
               asks.size(), all.size(), bytes, bytes / 4);
    return 0;
  }
  Progress progress(stderr, in.json, kPlainLineSeconds);
  const auto missing = static_cast<int64_t>(asks.size());
  if (missing > 0) progress.phase("asking " + options.setup.judge, 0, missing);
  const JudgeRunReport report =
      ask_judge(options.setup, asks, journal, {.backend = in.backend, .threads = in.threads},
                [&](int64_t done) { progress.phase("asking " + options.setup.judge, done, missing); });
  progress.clear();
  if (options.stored && report.left == 0) {
    VoteSource source;
    source.files = {options.out};
    source.db = in.db;
    import_votes(source);
  }
  fmt::print("{}\n", in.json ? report_json(report).dump(1) : describe(report));
  if (is_local(options.setup) && !in.json) fmt::print("{}\n", kLocalJudgeCaution);
  if (report.left == 0) return 0;
  std::string why = report.stopped;
  if (why.empty() && !report.error.empty()) why = "the last one: " + report.error;
  fail(ErrorKind::judge, "{} of {} questions are not answered{}; the same command asks only these",
       report.left, all.size(), why.empty() ? "" : " (" + why + ")");
}

void add_limits(CLI::App& verb, JudgeSetup& options) {
  JudgeRunOptions& run = options.run;
  verb.add_option("--concurrency", run.concurrency, "requests under way at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  verb.add_option("--per-minute", run.per_minute, "requests a minute at most; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--attempts", run.attempts, "for one question, while the judge may answer later")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  verb.add_option("--timeout", options.http.timeout_s, "seconds for one request")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  verb.add_option("--longest-wait", run.longest_wait_s,
                  "seconds; a judge that wants more (Retry-After) ends the run, to be gone on with later")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--budget-tokens", run.max_tokens_spent,
                  "never spend more tokens on --out, earlier runs in its ledger.jsonl included")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--budget-money", run.max_money_spent,
                  "never spend more on --out, earlier runs included; needs the prices")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--price-prompt", run.price_prompt, "of a million tokens")->check(CLI::NonNegativeNumber);
  verb.add_option("--price-answer", run.price_answer, "of a million tokens")->check(CLI::NonNegativeNumber);
}

}  // namespace

void add_judge_run_command(CLI::App& judge, Invocation& in) {
  auto options = std::make_shared<RunOptions>();
  JudgeSetup& setup = options->setup;
  CLI::App* verb = judge.add_subcommand("run", "asks a judge about every two systems, in both orders");
  verb->add_option("--answers", options->answers, "files of generations, one a system")->required();
  verb->add_option("--questions", options->questions, "{question_id, text, category} lines")->required();
  verb->add_option("--judge", setup.judge,
                   "a model of an OpenAI-compatible endpoint, or model:FOLDER (a local one)")
      ->required();
  verb->add_option("--out", options->out, "folder of the votes, a file an ordered pair, and of ledger.jsonl")
      ->required();
  verb->add_option("--prompts", setup.prompts, "prompts in the QLoRA release's layout (default: ours)");
  verb->add_flag("--points", setup.points, "ask for points from 0 to 10, not for a verdict");
  verb->add_option("--judge-name", setup.name, "the judge's name in the votes (default: the model)");
  verb->add_option("--parser", setup.run.parser,
                   "threeclass-N or scores-N (default: threeclass-2 or scores-2, so that a study goes on "
                   "as it began; `qlora judge reparse` applies newer ones)");
  verb->add_option("--temperature", setup.temperature, "default: 0.2, of a local model 0")
      ->check(CLI::Range(0.0, 2.0));
  verb->add_option("--chat-template", setup.chat_template,
                   "of a local model: a name, or auto (own): the model's")
      ->transform([](const std::string& name) { return name == kOwnChatTemplate ? "auto" : name; });
  verb->add_option("--max-tokens", setup.max_tokens, "of an answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  add_limits(*verb, setup);
  verb->add_flag("--store", options->stored, "once all is answered, store the votes in --db");
  verb->add_flag("--dry-run", options->dry, "only say how much there is to ask");
  add_compute_options(*verb, in);
  add_db_option(*verb, in);
  add_json_flag(*verb, in);
  verb->footer(
      "OPENAI_API_KEY and OPENAI_BASE_URL name the endpoint; the key is sent, never written.\n"
      "Example:\n  qlora judge run --judge gpt-4 --questions q.jsonl --answers red.jsonl blue.jsonl --out "
      "votes/");
  verb->callback([=, &in] { in.work = [=, &in] { return judge_run(in, *options); }; });
}

}  // namespace qlora
