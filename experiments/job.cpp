#include "experiments/job.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/job_answers.h"

namespace qlora {
namespace {

// Fields of a row to JSON and back, in one place each, so that the two directions cannot differ.
// NaN and infinity have no JSON form: they travel as null.
Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}
double number(const Json& json) {
  return json.is_null() ? std::nan("") : json.get<double>();
}

// [[request, answer], ...], both in hexadecimal digits.
Json answers_json(const std::vector<PartialAnswer>& answers) {
  Json list = Json::array();
  for (const PartialAnswer& a : answers) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(a.answer.data());
    list.push_back({hex(a.request), hex(std::span(bytes, a.answer.size()))});
  }
  return list;
}

std::vector<PartialAnswer> answers_from(const Json& list) {
  std::vector<PartialAnswer> answers;
  for (const Json& pair : list) {
    const std::string request = pair.at(0), digits = pair.at(1);
    PartialAnswer& a = answers.emplace_back();
    a.request = digest_from_hex(request);
    for (size_t i = 0; i + 1 < digits.size(); i += 2)
      a.answer += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  }
  return answers;
}

Json options_json(const TaskOptions& o) {
  return {{"shots", o.shots},
          {"limit", o.limit},
          {"groups", o.groups},
          {"examples", o.examples},
          {"fewshot_sampler", o.fewshot_sampler},
          {"fewshot_seed", o.fewshot_seed},
          {"max_length", o.max_length},
          {"stride", o.stride},
          {"max_new_tokens", o.max_new_tokens}};
}

TaskOptions options_from(const Json& json) {
  TaskOptions o;
  o.shots = json.at("shots");
  o.limit = json.at("limit");
  o.groups = json.at("groups").get<std::vector<std::string>>();
  o.examples = json.at("examples");
  o.fewshot_sampler = json.at("fewshot_sampler");
  o.fewshot_seed = json.at("fewshot_seed");
  o.max_length = json.at("max_length");
  o.stride = json.at("stride");
  o.max_new_tokens = json.at("max_new_tokens");
  return o;
}

Json eval_job_json(const EvalJob& e) {
  return {{"key", hex(e.key)},
          {"task", e.task},
          {"step", e.step},
          {"protocol", e.protocol},
          {"data", e.data},
          {"data_hash", e.data_hash},
          {"answers", answers_json(e.answers)},
          {"options", options_json(e.options)},
          {"mmlu",
           {{"protocol", e.mmlu.protocol},
            {"split", e.mmlu.split},
            {"shots", e.mmlu.shots},
            {"limit", e.mmlu.limit},
            {"subjects", e.mmlu.subjects},
            {"samples", e.mmlu.samples},
            {"max_length", e.mmlu.max_length},
            {"bos", e.mmlu.bos},
            {"chat_template", e.mmlu.chat_template},
            {"fewshot_as_multiturn",
             e.mmlu.fewshot_as_multiturn ? Json(*e.mmlu.fewshot_as_multiturn) : Json(nullptr)},
            {"system_instruction", e.mmlu.system_instruction}}}};
}

EvalJob eval_job_from(const Json& json) {
  EvalJob e;
  e.key = digest_from_hex(json.at("key").get<std::string>());
  e.task = json.at("task");
  e.step = json.at("step");
  e.protocol = json.at("protocol");
  e.data = json.at("data");
  e.data_hash = json.at("data_hash");
  e.answers = answers_from(json.at("answers"));
  e.options = options_from(json.at("options"));
  const Json& mmlu = json.at("mmlu");
  e.mmlu.protocol = mmlu.at("protocol");
  e.mmlu.split = mmlu.at("split");
  e.mmlu.shots = mmlu.at("shots");
  e.mmlu.limit = mmlu.at("limit");
  e.mmlu.subjects = mmlu.at("subjects").get<std::vector<std::string>>();
  e.mmlu.samples = mmlu.at("samples");
  e.mmlu.max_length = mmlu.at("max_length");
  e.mmlu.bos = mmlu.at("bos");
  e.mmlu.chat_template = mmlu.at("chat_template");
  if (const Json& turns = mmlu.at("fewshot_as_multiturn"); !turns.is_null())
    e.mmlu.fewshot_as_multiturn = turns.get<bool>();
  e.mmlu.system_instruction = mmlu.at("system_instruction");
  return e;
}

Json eval_jobs_json(const std::vector<EvalJob>& jobs) {
  Json list = Json::array();
  for (const EvalJob& job : jobs) list.push_back(eval_job_json(job));
  return list;
}

std::vector<EvalJob> eval_jobs_from(const Json& list) {
  std::vector<EvalJob> jobs;
  for (const Json& json : list) jobs.push_back(eval_job_from(json));
  return jobs;
}

Json step_json(const StepRow& s) {
  return {{"step", s.step},        {"loss", number(s.loss)}, {"grad_norm", number(s.grad_norm)},
          {"lr", s.learning_rate}, {"tokens", s.tokens},     {"labels", s.labels},
          {"seconds", s.seconds}};
}

StepRow step_from(const Json& json) {
  StepRow s;
  s.step = json.at("step");
  s.loss = number(json.at("loss"));
  s.grad_norm = number(json.at("grad_norm"));
  s.learning_rate = json.at("lr");
  s.tokens = json.at("tokens");
  s.labels = json.at("labels");
  s.seconds = json.at("seconds");
  return s;
}

Json prediction_json(const PredictionRow& p) {
  Json more = Json::object();
  if (p.log_sum_exp) more["log_sum_exp"] = *p.log_sum_exp;
  if (!p.greedy.empty()) more["greedy"] = p.greedy;
  if (p.text) more["text"] = *p.text;
  for (const ExtractedRow& e : p.extracted) more["extracted"].push_back({e.filter, e.answer});
  return {p.subject, p.ordinal, hex(p.prompt), p.gold, p.pred, p.correct, p.scores, p.dropped_shots, more};
}

PredictionRow prediction_from(const Json& json) {
  PredictionRow p;
  p.subject = json.at(0);
  p.ordinal = json.at(1);
  p.prompt = digest_from_hex(json.at(2).get<std::string>());
  p.gold = json.at(3);
  p.pred = json.at(4);
  p.correct = json.at(5);
  p.scores = json.at(6).get<std::vector<float>>();
  p.dropped_shots = json.at(7);
  const Json& more = json.at(8);
  if (more.contains("log_sum_exp")) p.log_sum_exp = more["log_sum_exp"].get<double>();
  if (more.contains("greedy")) p.greedy = more["greedy"].get<std::vector<uint8_t>>();
  if (more.contains("text")) p.text = more["text"].get<std::string>();
  if (more.contains("extracted"))
    for (const Json& e : more["extracted"]) p.extracted.push_back({e.at(0), e.at(1)});
  return p;
}

Json aggregate_json(const AggregateRow& a) {
  Json error = a.standard_error ? number(*a.standard_error) : Json(nullptr);
  return {a.metric, a.subject, a.n, number(a.value), error};
}

AggregateRow aggregate_from(const Json& json) {
  AggregateRow a;
  a.metric = json.at(0);
  a.subject = json.at(1);
  a.n = json.at(2);
  a.value = number(json.at(3));
  if (!json.at(4).is_null()) a.standard_error = json.at(4).get<double>();
  return a;
}

Json eval_row_json(const EvalRow& row) {
  Json aggregates = Json::array(), predictions = Json::array();
  for (const AggregateRow& a : row.aggregates) aggregates.push_back(aggregate_json(a));
  for (const PredictionRow& p : row.predictions) predictions.push_back(prediction_json(p));
  return {{"key", hex(row.key)},
          {"subject",
           {{"key", hex(row.subject.key)},
            {"is_run", row.subject.is_run},
            {"name", row.subject.name},
            {"model", row.subject.model},
            {"quant", row.subject.quant}}},
          {"step", row.step},
          {"task",
           {{"name", row.task.name},
            {"version", row.task.version},
            {"kind", row.task.kind},
            {"data", hex(row.task.data)}}},
          {"protocol", row.protocol_json},
          {"started_at", row.started_at},
          {"seconds", row.seconds},
          {"aggregates", aggregates},
          {"predictions", predictions}};
}

EvalRow eval_row_from(const Json& json) {
  EvalRow row;
  row.key = digest_from_hex(json.at("key").get<std::string>());
  const Json& subject = json.at("subject");
  row.subject.key = digest_from_hex(subject.at("key").get<std::string>());
  row.subject.is_run = subject.at("is_run");
  row.subject.name = subject.at("name");
  row.subject.model = subject.at("model");
  row.subject.quant = subject.at("quant");
  row.step = json.at("step");
  const Json& task = json.at("task");
  row.task.name = task.at("name");
  row.task.version = task.at("version");
  row.task.kind = task.at("kind");
  row.task.data = digest_from_hex(task.at("data").get<std::string>());
  row.protocol_json = json.at("protocol");
  row.started_at = json.at("started_at");
  row.seconds = json.at("seconds");
  for (const Json& a : json.at("aggregates")) row.aggregates.push_back(aggregate_from(a));
  for (const Json& p : json.at("predictions")) row.predictions.push_back(prediction_from(p));
  return row;
}

std::string line_of(const char* type, Json json) {
  json["type"] = type;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Digest run_of(const Json& json) {
  return digest_from_hex(json.at("run").get<std::string>());
}

}  // namespace

std::string to_text(const Job& job) {
  Json runs = Json::array();
  for (const RunJob& run : job.runs)
    runs.push_back(
        {{"name", run.name},
         {"key", hex(run.key)},
         {"config", run.config.to_json()},
         {"content",
          {{"model", run.content.model}, {"tokenizer", run.content.tokenizer}, {"data", run.content.data}}},
         {"folder", run.folder.string()},
         {"train", run.train},
         {"adapter", run.adapter.string()},
         {"evals", eval_jobs_json(run.evals)},
         {"answers", answer_jobs_json(run.answers)},
         {"scored", run.scored}});
  Json json = {{"model", job.model.string()},
               {"base_name", job.base_name},
               {"base_key", hex(job.base_key)},
               {"backend", job.backend},
               {"blas", job.device.blas},
               {"kept_bytes", job.device.kept_bytes},
               {"threads", job.threads},
               {"room", job.room},
               {"lasting", job.lasting},
               {"offload", job.offload},
               {"runs", runs},
               {"base_evals", eval_jobs_json(job.base_evals)},
               {"base_answers", answer_jobs_json(job.base_answers)}};
  if (job.judging) json["judging"] = judge_job_json(*job.judging);
  return json.dump(1);
}

Job job_from_text(const std::string& text, const std::string& origin) {
  Json json = parse_json(text, origin);
  try {
    Job job;
    job.model = json.at("model").get<std::string>();
    job.base_name = json.at("base_name");
    job.base_key = digest_from_hex(json.at("base_key").get<std::string>());
    job.backend = json.at("backend");
    job.device = {.blas = json.at("blas"), .kept_bytes = json.at("kept_bytes")};
    job.threads = json.at("threads");
    job.room = json.at("room");
    job.lasting = json.at("lasting");
    job.offload = json.at("offload");
    job.base_evals = eval_jobs_from(json.at("base_evals"));
    job.base_answers = answer_jobs_from(json.at("base_answers"));
    if (json.contains("judging")) job.judging = judge_job_from(json.at("judging"));
    for (const Json& r : json.at("runs")) {
      RunJob& run = job.runs.emplace_back();
      run.name = r.at("name");
      run.key = digest_from_hex(r.at("key").get<std::string>());
      run.config = RunConfig::from_json(r.at("config"));
      const Json& content = r.at("content");
      run.content = {content.at("model"), content.at("tokenizer"), content.at("data")};
      run.folder = r.at("folder").get<std::string>();
      run.train = r.at("train");
      run.adapter = r.at("adapter").get<std::string>();
      run.evals = eval_jobs_from(r.at("evals"));
      run.answers = answer_jobs_from(r.at("answers"));
      run.scored = r.at("scored").get<std::vector<std::pair<int64_t, StepScores>>>();
    }
    return job;
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: not a job: {}", origin, e.what());
  }
}

std::string to_text(const StartedMessage& m) {
  return line_of("started", {{"run", hex(m.run)}, {"step", m.step}});
}
std::string to_text(const StepMessage& m) {
  return line_of("step", {{"run", hex(m.run)}, {"row", step_json(m.row)}, {"memory", m.memory}});
}
std::string to_text(const EndedMessage& m) {
  return line_of("ended",
                 {{"run", hex(m.run)}, {"status", m.status}, {"step", m.step}, {"peak_bytes", m.peak_bytes}});
}
std::string to_text(const ScoredMessage& m) {
  return line_of("scored", {{"row", eval_row_json(m.row)}});
}
std::string to_text(const AnswersMessage& m) {
  return line_of("answers", {{"evaluation", hex(m.evaluation)}, {"answers", answers_json(m.answers)}});
}
std::string to_text(const GeneratedMessage& m) {
  return line_of("generated", {{"set", hex(m.set)}, {"row", generation_row_json(m.row)}});
}
std::string to_text(const PhaseMessage& m) {
  return line_of("phase", {{"what", m.what}, {"done", m.done}, {"all", m.all}});
}
std::string to_text(const NoteMessage& m) {
  return line_of("note", {{"text", m.text}});
}
std::string to_text(const FailedMessage& m) {
  return line_of("failed", {{"kind", m.kind}, {"text", m.text}});
}

ScoredMessage scored_from_text(const std::string& line, const std::string& origin) {
  const Json json = parse_json(line, origin);
  try {
    return {eval_row_from(json.at("row"))};
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: not a score: {}", origin, e.what());
  }
}

void dispatch(const std::string& line, MessageHandler& handler) {
  try {
    Json json = Json::parse(line);
    std::string type = json.at("type");
    if (type == "started") return handler.on(StartedMessage{run_of(json), json.at("step")});
    if (type == "step")
      return handler.on(StepMessage{run_of(json), step_from(json.at("row")), json.at("memory")});
    if (type == "ended")
      return handler.on(
          EndedMessage{run_of(json), json.at("status"), json.at("step"), json.at("peak_bytes")});
    if (type == "scored") return handler.on(ScoredMessage{eval_row_from(json.at("row"))});
    if (type == "answers")
      return handler.on(AnswersMessage{digest_from_hex(json.at("evaluation").get<std::string>()),
                                       answers_from(json.at("answers"))});
    if (type == "generated")
      return handler.on(GeneratedMessage{digest_from_hex(json.at("set").get<std::string>()),
                                         generation_row_from(json.at("row"))});
    if (type == "phase") return handler.on(PhaseMessage{json.at("what"), json.at("done"), json.at("all")});
    if (type == "note") return handler.on(NoteMessage{json.at("text")});
    if (type == "failed") return handler.on(FailedMessage{json.at("kind"), json.at("text")});
    fail(ErrorKind::failure, "a worker sent a message of unknown type `{}`", type);
  } catch (const Json::exception& e) {
    fail(ErrorKind::failure, "a worker sent something that is no message ({}): {}", e.what(),
         line.substr(0, 200));
  }
}

}  // namespace qlora
