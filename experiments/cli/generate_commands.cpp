// qlora generate: the answer to one prompt, or the answers to a file of questions.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/lora/lora.h"
#include "core/models/generate.h"
#include "core/text/stop_strings.h"
#include "experiments/build_info.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/generation_options.h"
#include "experiments/cli/loaded_model.h"
#include "experiments/cli/scored_subject.h"
#include "experiments/eval_rows.h"
#include "experiments/options.h"
#include "experiments/pack_runner.h"
#include "experiments/score_runs.h"
#include "experiments/terminal.h"

namespace qlora {
namespace {

struct GenerateArguments {
  ModelArguments model;
  GenerationArguments generation;
  std::string prompt, questions, out;
  std::vector<std::string> runs;
  bool base = false, no_store = false;
  int64_t batch = 16, limit = 0;
};

// ---- one prompt

int answer_prompt(const Invocation& in, const GenerateArguments& arguments) {
  LoadedModel loaded(arguments.model, in.backend, in.threads);
  const Tokenizer& tokenizer = loaded.tokenizer();
  GenerationSettings settings = arguments.generation.settings;
  if (arguments.generation.greedy) settings.sampling.temperature = 0;
  set_token_steps(settings, loaded);
  Prompt prompt{{}, loaded.adapter(), settings.sampling};
  prompt.sampling.key = sampling_key(static_cast<uint64_t>(settings.seed), arguments.prompt);
  GenerateOptions options;
  options.max_new_tokens = settings.max_new_tokens;
  options.numerics = decode_numerics(loaded.config());
  options.drafts = settings.drafts;
  if (!settings.chat_template.empty()) {
    settings = settings_of(arguments.generation, tokenizer);
    const ChatTemplate& chat = chat_template_by_name(settings.chat_template);
    std::vector<ChatMessage> messages;
    if (!settings.system.empty()) messages.push_back({"system", settings.system});
    messages.push_back({"user", arguments.prompt});
    prompt.tokens = encode_chat(chat, tokenizer, messages, true);
    options.stop_ids = ends_of_answers(chat, tokenizer, *loaded.model());
    for (const char* stop : chat.stops) settings.stops.emplace_back(stop);
  } else {
    prompt.tokens = tokenizer.encode(arguments.prompt, true);
    options.stop_ids = loaded.model()->config().eos_ids;
    if (int32_t eos = tokenizer.special().eos; eos >= 0) options.stop_ids.push_back(eos);
  }
  QLORA_CHECK(!prompt.tokens.empty(), usage, "the prompt is empty");

  StreamDecoder decoder(tokenizer);
  StopStrings stops(settings.stops);
  std::string text;
  auto show = [&](const std::string& piece) {
    text += piece;
    if (in.json) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  options.on_token = [&](size_t, int32_t token) {
    show(stops.push(decoder.push(token)));
    return !stops.stopped();
  };
  int64_t steps = 0;
  options.on_step = [&](int64_t, int64_t) { ++steps; };
  const auto answers =
      generate(*loaded.model(), loaded.memory(), loaded.type(), std::span(&prompt, 1), options);
  show(stops.push(decoder.finish()));
  show(stops.finish());
  if (in.json) {
    Json json = {{"prompt", arguments.prompt},
                 {"text", text},
                 {"prompt_ids", prompt.tokens},
                 {"ids", answers[0]},
                 {"steps", steps},
                 {"decode_numerics", loaded.config().text("decode_numerics")}};
    fmt::print("{}\n", json.dump(1, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("\n");
  }
  const auto tokens = static_cast<double>(answers[0].size());
  if (::isatty(STDERR_FILENO) != 0 && steps > 0)
    fmt::print(stderr, "({} tokens, {:.2f} a step)\n", tokens, (tokens - 1) / static_cast<double>(steps));
  return 0;
}

// ---- a file of questions

// Runs that stand on one base and generate in one way. The first one says how many tokens are guessed ahead,
// which changes no answer.
struct Group {
  RunConfig config;
  Digest base{};
  std::vector<std::pair<SubjectModel, Path>> runs;  // with their adapters
  std::vector<int64_t> steps;
};

std::vector<Group> group_runs(const Store& store, const GenerateArguments& arguments, Progress& progress) {
  std::vector<std::string> notes;
  std::vector<Group> groups;
  for (const RunInfo& info : choose_runs(store, arguments.runs, notes)) {
    RunConfig config = RunConfig::from_json(parse_json(info.config_json, "run " + info.name));
    if (const std::string& asked = arguments.model.decode_numerics; !asked.empty())
      config = config.with("decode_numerics", asked);
    if (const std::string& asked = arguments.model.prompt_lookup_num_tokens; !asked.empty())
      config = config.with("prompt_lookup_num_tokens",
                           parse_option(*find_option("prompt_lookup_num_tokens"), asked));
    const Path adapter = find_adapter(config, info.key), model = config.text("model_name_or_path");
    QLORA_CHECK(!adapter.empty(), data, "run {} is trained, but its adapter is not below {}", info.name,
                config.text("output_dir"));
    const ContentHashes content{model_content_hash(model), load_tokenizer(model)->content_hash(), ""};
    const Digest base = base_key(config, content);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.base == base && g.config.text("decode_numerics") == config.text("decode_numerics");
    });
    if (group == groups.end()) {
      group = groups.emplace(group);
      group->config = config;
      group->base = base;
    }
    group->runs.push_back({{info.key, true, info.name, model.string(), quant_label(config)}, adapter});
    group->steps.push_back(info.last_step);
  }
  for (const std::string& note : notes) progress.note(note);
  return groups;
}

class QuestionCommand {
 public:
  QuestionCommand(const Invocation& in, const GenerateArguments& arguments)
      : in_(in),
        arguments_(arguments),
        file_(read_questions(arguments.questions)),
        progress_(stderr, in.json, kPlainLineSeconds) {
    if (arguments.limit > 0 && arguments.limit < static_cast<int64_t>(file_.questions.size()))
      file_.questions.resize(static_cast<size_t>(arguments.limit));
    out_ = arguments.out.empty() ? Path("generations") / file_.name : Path(arguments.out);
  }

  int run() {
    if (!arguments_.no_store) store_ = Store::open(in_.db);
    catch_stop_signals();
    try {
      arguments_.runs.empty() ? answer_model() : answer_runs();
    } catch (const GenerationStopped&) {
      progress_.clear();
      progress_.note(store_ ? "stopped; what was answered is stored, the same command goes on from there"
                            : "stopped; without a store nothing is kept");
      return 128 + last_stop_signal();
    }
    progress_.clear();
    if (in_.json) fmt::print("{}\n", Json{{"type", "done"}, {"systems", done_}}.dump());
    return 0;
  }

 private:
  void launch(const std::vector<std::string>& systems) const {
    if (!in_.json) return;
    fmt::print("{}\n", Json{{"type", "launch"},
                            {"questions", file_.path},
                            {"set", file_.name},
                            {"count", file_.questions.size()},
                            {"out", out_.string()},
                            {"db", store_ ? Json(in_.db) : Json(nullptr)},
                            {"systems", systems}}
                           .dump());
    std::fflush(stdout);
  }

  void answer_model() {
    LoadedModel loaded(arguments_.model, in_.backend, in_.threads);
    const Digest base = base_key(
        loaded.config(), {model_content_hash(arguments_.model.model), loaded.tokenizer().content_hash(), ""});
    AnsweringSubject subject{{}, 0, loaded.adapter()};
    subject.subject =
        scored_subject(store_ ? &*store_ : nullptr, arguments_.model, loaded.config(), base, subject.step);
    launch({subject.subject.name});
    answer(loaded, std::span(&subject, 1));
  }

  static std::string base_name(const Group& group) {
    const Path model = group.config.text("model_name_or_path");
    return (model.filename().empty() ? model.parent_path() : model).filename().string();
  }

  void answer_runs() {
    QLORA_CHECK(store_, usage, "--runs: the runs are those of --db, --no-store does not fit");
    const std::vector<Group> groups = group_runs(*store_, arguments_, progress_);
    std::vector<std::string> names;
    for (const Group& group : groups) {
      if (arguments_.base) names.push_back(base_name(group));
      for (const auto& [subject, adapter] : group.runs) names.push_back(subject.name);
    }
    launch(names);
    for (const Group& group : groups) {
      LoadedModel loaded(group.config, in_.backend, in_.threads);
      std::vector<LoadedAdapter> adapters;
      std::vector<AnsweringSubject> subjects;
      if (arguments_.base) {
        const Path model = group.config.text("model_name_or_path");
        subjects.push_back(
            {base_subject(group.base, base_name(group), model, quant_label(group.config)), 0, nullptr});
      }
      for (size_t i = 0; i < group.runs.size(); ++i) {
        adapters.push_back(load_peft(group.runs[i].second, *loaded.model(), loaded.memory(), loaded.type()));
        subjects.push_back({group.runs[i].first, group.steps[i], adapters.back().adapter.get()});
      }
      answer(loaded, subjects);
    }
  }

  void answer(LoadedModel& loaded, std::span<const AnsweringSubject> subjects) {
    GenerationSettings settings = settings_of(arguments_.generation, loaded.tokenizer());
    set_token_steps(settings, loaded);
    std::optional<StoreKeeper> keeper;
    if (store_) keeper.emplace(*store_);
    AnswerOptions options{
        .model = *loaded.model(),
        .memory = loaded.memory(),
        .type = loaded.type(),
        .tokenizer = loaded.tokenizer(),
        .keeper = keeper ? &*keeper : nullptr,
        .batch = arguments_.batch,
        .program = program_line(),
        .progress = [this](int64_t done,
                           int64_t all) { progress_.phase("answers of " + file_.name, done, all); },
        .stop = [] { return stop_signals() > 0; }};
    for (const AnswerSet& set : answer_questions(options, file_, settings, subjects)) report(settings, set);
  }

  void report(const GenerationSettings& settings, const AnswerSet& set) {
    int64_t answers = 0, cut = 0, no_room = 0;
    for (const TurnRows& rows : set.answers)
      for (const GenerationRow& row : rows) {
        ++answers;
        cut += row.finish == "length" ? 1 : 0;
        no_room += row.finish == "no_room" ? 1 : 0;
      }
    std::vector<std::string> files;
    for (const Path& path : write_answer_files(out_, file_, settings, set)) files.push_back(path.string());
    done_.push_back({{"system", set.system},
                     {"key", hex(set.key)},
                     {"answers", answers},
                     {"new", set.fresh},
                     {"cut_by_length", cut},
                     {"no_room", no_room},
                     {"settings", parse_json(settings_text(settings), "settings")},
                     {"files", files}});
    if (in_.json) return;
    progress_.clear();
    fmt::print("{}: {} answers, {} of them new, {} cut at {} tokens\n", set.system, answers, set.fresh, cut,
               settings.max_new_tokens);
    if (no_room > 0) fmt::print("  {} prompts left no room for an answer\n", no_room);
    for (const std::string& path : files) fmt::print("  {}\n", path);
  }

  const Invocation& in_;
  const GenerateArguments& arguments_;
  QuestionFile file_;
  Progress progress_;
  Path out_;
  std::optional<Store> store_;
  Json done_ = Json::array();
};

int generate_text(const Invocation& in, const GenerateArguments& arguments, bool limit_given) {
  const ModelArguments& m = arguments.model;
  QLORA_CHECK(arguments.prompt.empty() != arguments.questions.empty(), usage,
              "generate: either --prompt TEXT or --questions FILE is required");
  QLORA_CHECK(arguments.runs.empty() != m.model.empty(), usage,
              "generate: either --model DIR or --runs is required");
  QLORA_CHECK(
      arguments.runs.empty() || (m.adapter.empty() && m.quant.empty() && m.compute_dtype.empty()), usage,
      "--runs: the runs say which model they stand on; without --adapter, --quant and --compute-dtype");
  QLORA_CHECK(arguments.runs.empty() || !arguments.questions.empty(), usage, "--runs needs --questions");
  if (!arguments.questions.empty()) return QuestionCommand(in, arguments).run();
  GenerateArguments one = arguments;
  if (!limit_given) one.generation.settings.max_new_tokens = 256;
  return answer_prompt(in, one);
}

}  // namespace

void add_generate_commands(CLI::App& app, Invocation& in) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* verb = app.add_subcommand("generate", "answers to a prompt or to a file of questions");
  add_model_options(*verb, arguments->model);
  verb->get_option("--model")->required(false);
  verb->add_option("--prompt", arguments->prompt, "a text to go on from, or with --template a question");
  verb->add_option("--questions", arguments->questions,
                   "JSON lines: Vicuna's, MT-bench's or the release's OA");
  verb->add_option("--runs", arguments->runs,
                   "instead of --model: sweep=NAME, names or keys of trained runs; the base is loaded once")
      ->delimiter(',');
  verb->add_flag("--base", arguments->base, "with --runs: their base answers too");
  verb->add_option("--out", arguments->out, "folder of the answer files (default: generations/SET)");
  verb->add_option("--limit", arguments->limit, "only the first questions")->check(CLI::PositiveNumber);
  verb->add_option("--batch-size", arguments->batch, "answers at a time; changes none")
      ->check(CLI::PositiveNumber);
  add_generation_options(*verb, arguments->generation);
  add_token_step_options(*verb, arguments->model);
  verb->add_flag("--no-store", arguments->no_store, "keep no answer in --db, resume nothing");
  add_db_option(*verb, in);
  add_compute_options(*verb, in);
  add_json_flag(*verb, in);
  verb->footer(
      "Examples:\n  qlora generate --model DIR --adapter DIR --template auto --prompt \"What is an atom?\"\n"
      "  qlora generate --runs sweep=NAME --base --questions vicuna_questions.jsonl --template guanaco");
  const CLI::Option* limit = verb->get_option("--max-new-tokens");
  verb->callback([=, &in] {
    const bool limit_given = limit->count() > 0;
    in.work = [=, &in] { return generate_text(in, *arguments, limit_given); };
  });
}

}  // namespace qlora
