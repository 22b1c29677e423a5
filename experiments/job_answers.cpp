#include "experiments/job_answers.h"

#include <nlohmann/json.hpp>

namespace qlora {
namespace {

Json settings_json(const GenerationSettings& s) {
  return {{"template", s.chat_template},
          {"system", s.system},
          {"temperature", s.sampling.temperature},
          {"top_p", s.sampling.top_p},
          {"top_k", s.sampling.top_k},
          {"repetition_penalty", s.sampling.repetition_penalty},
          {"max_new_tokens", s.max_new_tokens},
          {"stops", s.stops},
          {"seed", s.seed},
          {"decode_numerics", s.decode_numerics},
          {"drafts", s.drafts}};
}

GenerationSettings settings_from(const Json& json) {
  GenerationSettings s;
  s.chat_template = json.at("template");
  s.system = json.at("system");
  s.sampling.temperature = json.at("temperature");
  s.sampling.top_p = json.at("top_p");
  s.sampling.top_k = json.at("top_k");
  s.sampling.repetition_penalty = json.at("repetition_penalty");
  s.max_new_tokens = json.at("max_new_tokens");
  s.stops = json.at("stops").get<std::vector<std::string>>();
  s.seed = json.at("seed");
  s.decode_numerics = json.at("decode_numerics");
  s.drafts = json.at("drafts");
  return s;
}

// The address and the key of an endpoint come from the environment and are never written.
Json setup_json(const JudgeSetup& s) {
  const JudgeRunOptions& r = s.run;
  return {{"judge", s.judge},
          {"name", s.name},
          {"prompts", s.prompts},
          {"points", s.points},
          {"temperature", s.temperature ? Json(*s.temperature) : Json(nullptr)},
          {"max_tokens", s.max_tokens},
          {"chat_template", s.chat_template},
          {"timeout", s.http.timeout_s},
          {"concurrency", r.concurrency},
          {"per_minute", r.per_minute},
          {"attempts", r.attempts},
          {"longest_wait", r.longest_wait_s},
          {"budget_tokens", r.max_tokens_spent},
          {"budget_money", r.max_money_spent},
          {"price_prompt", r.price_prompt},
          {"price_answer", r.price_answer},
          {"parser", r.parser}};
}

JudgeSetup setup_from(const Json& json) {
  JudgeSetup s;
  s.judge = json.at("judge");
  s.name = json.at("name");
  s.prompts = json.at("prompts");
  s.points = json.at("points");
  if (!json.at("temperature").is_null()) s.temperature = json.at("temperature").get<double>();
  s.max_tokens = json.at("max_tokens");
  s.chat_template = json.at("chat_template");
  s.http.timeout_s = json.at("timeout");
  JudgeRunOptions& r = s.run;
  r.concurrency = json.at("concurrency");
  r.per_minute = json.at("per_minute");
  r.attempts = json.at("attempts");
  r.longest_wait_s = json.at("longest_wait");
  r.max_tokens_spent = json.at("budget_tokens");
  r.max_money_spent = json.at("budget_money");
  r.price_prompt = json.at("price_prompt");
  r.price_answer = json.at("price_answer");
  r.parser = json.at("parser");
  return s;
}

// A vote without a verdict, as far as a question to a judge says it.
Json ask_json(const JudgeAsk& ask) {
  const Vote& v = ask.vote;
  return {v.item,
          v.first,
          v.second,
          v.first_answer,
          v.second_answer,
          v.judge,
          v.prompt,
          v.points,
          v.review,
          ask.request.system,
          ask.request.user,
          ask.request.temperature,
          ask.request.max_tokens,
          ask.wording};
}

JudgeAsk ask_from(const Json& json) {
  JudgeAsk ask;
  Vote& v = ask.vote;
  v.item = json.at(0);
  v.first = json.at(1);
  v.second = json.at(2);
  v.first_answer = json.at(3);
  v.second_answer = json.at(4);
  v.judge = json.at(5);
  v.prompt = json.at(6);
  v.points = json.at(7);
  v.review = json.at(8);
  ask.request = {json.at(9), json.at(10), json.at(11), json.at(12)};
  ask.wording = json.at(13);
  return ask;
}

}  // namespace

Json generation_row_json(const GenerationRow& r) {
  return {r.question, r.turn, hex(r.prompt), r.text, r.answer, r.tokens, r.finish, r.created_at};
}

GenerationRow generation_row_from(const Json& json) {
  GenerationRow r;
  r.question = json.at(0);
  r.turn = json.at(1);
  r.prompt = digest_from_hex(json.at(2).get<std::string>());
  r.text = json.at(3);
  r.answer = json.at(4);
  r.tokens = json.at(5);
  r.finish = json.at(6);
  r.created_at = json.at(7);
  return r;
}

Json answer_jobs_json(const std::vector<AnswerJob>& jobs) {
  Json list = Json::array();
  for (const AnswerJob& job : jobs) {
    Json known = Json::array();
    for (const GenerationRow& row : job.known) known.push_back(generation_row_json(row));
    list.push_back({{"key", hex(job.key)},
                    {"settings", settings_json(job.settings)},
                    {"questions", job.questions},
                    {"content", hex(job.content)},
                    {"limit", job.limit},
                    {"step", job.step},
                    {"system", job.system},
                    {"known", known}});
  }
  return list;
}

std::vector<AnswerJob> answer_jobs_from(const Json& list) {
  std::vector<AnswerJob> jobs;
  for (const Json& json : list) {
    AnswerJob& job = jobs.emplace_back();
    job.key = digest_from_hex(json.at("key").get<std::string>());
    job.settings = settings_from(json.at("settings"));
    job.questions = json.at("questions");
    job.content = digest_from_hex(json.at("content").get<std::string>());
    job.limit = json.at("limit");
    job.step = json.at("step");
    job.system = json.at("system");
    for (const Json& row : json.at("known")) job.known.push_back(generation_row_from(row));
  }
  return jobs;
}

Json judge_job_json(const JudgeJob& job) {
  Json asks = Json::array();
  for (const JudgeAsk& ask : job.asks) asks.push_back(ask_json(ask));
  return {{"setup", setup_json(job.setup)}, {"asks", asks}, {"folder", job.folder.string()}};
}

JudgeJob judge_job_from(const Json& json) {
  JudgeJob job;
  job.setup = setup_from(json.at("setup"));
  for (const Json& ask : json.at("asks")) job.asks.push_back(ask_from(ask));
  job.folder = json.at("folder").get<std::string>();
  return job;
}

}  // namespace qlora
