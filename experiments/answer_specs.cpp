#include "experiments/answer_specs.h"

#include <set>

#include "core/text/chat_template.h"
#include "experiments/fields.h"

namespace qlora {
namespace {

void read_sampling(const Fields& fields, Sampling& sampling) {
  bool greedy = false;
  fields.read("greedy", ValueKind::boolean, greedy);
  fields.read("temperature", ValueKind::number, sampling.temperature);
  QLORA_CHECK(!greedy || !fields.has("temperature") || sampling.temperature == 0, usage,
              "{}: `greedy` is temperature 0; keep one of the two", fields.at("greedy").where.text());
  if (greedy) sampling.temperature = 0;
  fields.read("top_p", ValueKind::number, sampling.top_p);
  fields.read("top_k", sampling.top_k, 0);
  fields.read("repetition_penalty", ValueKind::number, sampling.repetition_penalty);
}

void read_generate(const YamlNode& node, std::vector<GenerateSpec>& specs) {
  Fields fields(node, "generate",
                {"questions", "template", "system", "greedy", "temperature", "top_p", "top_k",
                 "repetition_penalty", "max_new_tokens", "stop", "seed", "limit", "base"});
  GenerateSpec spec;
  spec.where = node.where;
  spec.settings.chat_template = "auto";
  fields.read("template", ValueKind::text, spec.settings.chat_template);
  if (spec.settings.chat_template == kOwnChatTemplate) spec.settings.chat_template = "auto";
  if (spec.settings.chat_template != "auto") chat_template_by_name(spec.settings.chat_template);
  fields.read("system", ValueKind::text, spec.settings.system);
  read_sampling(fields, spec.settings.sampling);
  try {
    check_sampling(spec.settings.sampling);
  } catch (const Error& e) {
    fail(e.kind(), "{}: {}", node.where.text(), e.what());
  }
  fields.read("max_new_tokens", spec.settings.max_new_tokens, 1);
  fields.read("stop", ValueKind::list, spec.settings.stops);
  fields.read("seed", spec.settings.seed, 0);
  fields.read("limit", spec.limit, 0);
  fields.read("base", ValueKind::boolean, spec.base);
  std::vector<std::string> files;
  fields.at("questions");
  fields.read("questions", ValueKind::list, files);
  for (const std::string& file : files) {
    spec.questions = file;
    specs.push_back(spec);
  }
}

void read_number(const Fields& fields, std::string_view key, double& into) {
  fields.read(key, ValueKind::number, into);
  QLORA_CHECK(into >= 0, usage, "{}: `{}` must not be negative", fields.at(key).where.text(), key);
}

void read_int(const Fields& fields, std::string_view key, int& into, int64_t most) {
  int64_t value = into;
  fields.read(key, value, 1);
  QLORA_CHECK(value <= most, usage, "{}: `{}` must be at most {}", fields.at(key).where.text(), key, most);
  into = static_cast<int>(value);
}

void read_endpoint(const Fields& fields, JudgeSetup& setup) {
  JudgeRunOptions& run = setup.run;
  read_int(fields, "concurrency", run.concurrency, 256);
  read_int(fields, "attempts", run.attempts, 1000);
  read_number(fields, "per_minute", run.per_minute);
  read_number(fields, "longest_wait", run.longest_wait_s);
  read_number(fields, "timeout", setup.http.timeout_s);
  QLORA_CHECK(setup.http.timeout_s > 0, usage, "{}: `timeout` must be above 0",
              fields.at("timeout").where.text());
  fields.read("budget_tokens", run.max_tokens_spent, 0);
  read_number(fields, "budget_money", run.max_money_spent);
  read_number(fields, "price_prompt", run.price_prompt);
  read_number(fields, "price_answer", run.price_answer);
}

JudgeSpec read_judge(const YamlNode& node) {
  const std::vector<std::string> endpoint = {"concurrency",  "per_minute",   "attempts",
                                             "timeout",      "longest_wait", "budget_tokens",
                                             "budget_money", "price_prompt", "price_answer"};
  JudgeSpec spec;
  spec.where = node.where;
  JudgeSetup& setup = spec.setup;
  std::vector<std::string> known = {"judge",  "name",        "questions",  "prompts",      "points",
                                    "parser", "temperature", "max_tokens", "chat_template"};
  known.insert(known.end(), endpoint.begin(), endpoint.end());
  Fields fields(node, "judge", known);
  setup.judge = std::get<std::string>(read_value(fields.at("judge"), ValueKind::text, "judge"));
  fields.read("name", ValueKind::text, setup.name);
  fields.read("questions", ValueKind::list, spec.questions);
  fields.read("prompts", ValueKind::text, setup.prompts);
  fields.read("points", ValueKind::boolean, setup.points);
  fields.read("parser", ValueKind::text, setup.run.parser);
  if (fields.has("temperature")) {
    setup.temperature = 0;
    read_number(fields, "temperature", *setup.temperature);
    QLORA_CHECK(*setup.temperature <= 2, usage, "{}: `temperature` must be at most 2",
                fields.at("temperature").where.text());
  }
  read_int(fields, "max_tokens", setup.max_tokens, 1'000'000);
  const bool local = setup.judge == kBaseJudge || is_local(setup);
  if (local) {
    for (const std::string& key : endpoint)
      QLORA_CHECK(!fields.has(key), usage, "{}: `{}` is for an endpoint, and {} is a local model",
                  fields.at(key).where.text(), key, setup.judge);
    fields.read("chat_template", ValueKind::text, setup.chat_template);
    if (setup.chat_template == kOwnChatTemplate) setup.chat_template = "auto";
    if (setup.chat_template != "auto") chat_template_by_name(setup.chat_template);
  } else {
    QLORA_CHECK(!fields.has("chat_template"), usage, "{}: `chat_template` is for a local model",
                fields.at("chat_template").where.text());
    read_endpoint(fields, setup);
  }
  return spec;
}

}  // namespace

std::vector<GenerateSpec> read_generates(const YamlNode& list) {
  std::vector<GenerateSpec> specs;
  for (const YamlNode& node : items_of(list, "generate")) read_generate(node, specs);
  return specs;
}

QuestionFile questions_of(const GenerateSpec& spec) {
  QuestionFile file = read_questions(spec.questions);
  if (spec.limit > 0 && spec.limit < static_cast<int64_t>(file.questions.size()))
    file.questions.resize(static_cast<size_t>(spec.limit));
  return file;
}

std::vector<JudgeSpec> read_judges(const YamlNode& list) {
  std::vector<JudgeSpec> specs;
  std::set<std::string> names;
  for (const YamlNode& node : items_of(list, "judge")) {
    specs.push_back(read_judge(node));
    const std::string name = name_of(specs.back().setup);
    QLORA_CHECK(names.insert(name).second, usage, "{}: two judges are called `{}`; give one a `name`",
                node.where.text(), name);
  }
  return specs;
}

}  // namespace qlora
