#include "experiments/judge_study.h"

#include <cstdlib>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "core/text/tokenizer.h"
#include "experiments/model_judge.h"
#include "experiments/place.h"
#include "experiments/spec.h"

namespace qlora {
namespace {

constexpr std::string_view kLocal = "model:";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A folder's name says nothing about what is in it.
std::string local_identity(const JudgeSetup& setup) {
  const Path folder = folder_of(setup);
  std::string all = model_content_hash(folder) + " " + setup.chat_template;
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"})
    if (std::filesystem::exists(folder / name)) all += " " + hex(sha256_file(folder / name));
  return hex(sha256(all));
}

}  // namespace

std::string folder_of(const JudgeSetup& setup) {
  return setup.judge.starts_with(kLocal) ? setup.judge.substr(kLocal.size()) : "";
}

bool is_local(const JudgeSetup& setup) {
  return !folder_of(setup).empty();
}

std::string name_of(const JudgeSetup& setup) {
  if (!setup.name.empty()) return setup.name;
  const std::string folder = folder_of(setup);
  return folder.empty() ? setup.judge : (Path(folder) / ".").parent_path().filename().string();
}

JudgeStudy study_of(const JudgeSetup& setup) {
  JudgeStudy study;
  study.judge = name_of(setup);
  study.model = is_local(setup) ? local_identity(setup) : setup.judge;
  study.prompts =
      setup.prompts.empty() ? default_judge_prompts(setup.points) : read_judge_prompts(setup.prompts);
  study.points = setup.points;
  study.temperature = setup.temperature.value_or(is_local(setup) ? 0 : 0.2);
  study.max_tokens = setup.max_tokens;
  return study;
}

void check_can_ask(const JudgeSetup& setup) {
  check_run_options(setup.run, setup.points);
  QLORA_CHECK(is_local(setup) || !variable("OPENAI_API_KEY").empty() || !variable("OPENAI_BASE_URL").empty(),
              usage,
              "judge {}: {} wants a key, and OPENAI_API_KEY is not set; set it, or OPENAI_BASE_URL to the "
              "address of another endpoint, or take a local model (model:FOLDER)",
              setup.judge, setup.http.base_url);
}

RunConfig judge_config(const std::string& folder, bool on_gpu) {
  Settings settings;
  for (const auto& [name, text] : {std::pair<const char*, std::string>{"model_name_or_path", folder},
                                   {"dataset", "-"},
                                   {"bits", "32"},
                                   {"compute_dtype", best_compute_dtype(on_gpu)}})
    settings[name] = {parse_option(*find_option(name), text), {}};
  return RunConfig(settings);
}

JudgeRunReport ask_judge(const JudgeSetup& setup, std::span<const JudgeAsk> asks, JudgeJournal& journal,
                         const LocalJudge& local, const std::function<void(int64_t)>& told) {
  int64_t done = 0;
  auto commit = [&](const Vote* vote, const JudgeLedgerRow& row) {
    journal.commit(vote, row);
    if (told) told(++done);
  };
  if (asks.empty()) return {};
  JudgeRunOptions run = setup.run;
  run.spent_before = journal.spent();
  const std::string folder = folder_of(setup);
  if (folder.empty()) {
    HttpChatOptions http = setup.http;
    http.model = setup.judge;
    http.key = variable("OPENAI_API_KEY");
    if (std::string url = variable("OPENAI_BASE_URL"); !url.empty()) http.base_url = url;
    return run_study(
        asks, [&] { return make_http_chat_client(http); }, run, commit);
  }
  if (local.threads > 0) set_thread_count(local.threads);
  const std::unique_ptr<Backend> backend = make_backend(local.backend);
  Memory memory(*backend);
  memory.reserve(local.room);
  if (!backend->host_memory()) memory.reserve_lasting(local.lasting);
  const LoadOptions options = load_options(judge_config(folder, names_gpu(local.backend)));
  const std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(folder);
  const std::shared_ptr<const Model> model = load_model(folder, memory, options);
  const ModelJudgeOptions judge{model.get(), &memory,      tokenizer.get(),
                                nullptr,     options.type, setup.chat_template};
  run.concurrency = 1;  // its threads are inside the kernels
  return run_study(
      asks, [&] { return make_model_judge(judge); }, run, commit);
}

std::string about_other_votes(int64_t votes, const std::string& folder) {
  if (votes == 0) return "";
  return fmt::format(
      "{} votes in {} answer other requests (another text, prompt, setting or model, or an older version): "
      "they "
      "are set aside in its folder `superseded`, and their questions are asked again",
      votes, folder);
}

std::string describe(const JudgeRunReport& r) {
  std::string text =
      fmt::format("{} answered ({} without a verdict), {} failed, {} left; {} requests, {} + {} tokens",
                  r.answered, r.invalid, r.failed, r.left, r.requests, r.prompt_tokens, r.answer_tokens);
  if (r.money > 0) text += fmt::format(", cost {:.4f}", r.money);
  return text;
}

}  // namespace qlora
