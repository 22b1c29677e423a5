#include "eval/tasks/mmlu_harness.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace qlora {
namespace {

constexpr const char* kLetters = "ABCD";

const MmluQuestion& question_of(const MmluSubject& subject, int64_t index) {
  auto found = std::find_if(subject.questions.begin(), subject.questions.end(),
                            [&](const MmluQuestion& q) { return q.index == index; });
  QLORA_CHECK(found != subject.questions.end(), failure, "MMLU: no question {} of {}", index + 1,
              subject.name);
  return *found;
}

TaskItem item_of(const MmluSubject& subject, const MmluQuestion& q, const MmluPrompt& prompt) {
  TaskItem item;
  item.index = q.index;
  item.group = subject.name;
  item.contexts = {prompt.text};
  for (int i = 0; i < 4; ++i) {
    item.continuations.push_back(prompt.letter_gap + kLetters[i]);
    item.lengths.push_back(1);
  }
  item.gold = q.answer;
  Json document = {{"subject", subject.name}, {"answer", q.answer}};
  if (q.rendered.empty()) {
    document["question"] = q.question;
    document["choices"] = q.choices;
  } else {
    document["input"] = q.rendered;
  }
  item.document = canonical(document);
  return item;
}

TaskScore score_of(const std::string& group, const Accuracy& accuracy) {
  TaskScore score;
  score.metric = "acc";
  score.filter = "none";
  score.group = group;
  score.n = accuracy.n;
  score.value = accuracy.value;
  score.standard_error = accuracy.standard_error;
  return score;
}

}  // namespace

MmluHarness mmlu_harness(const Path& path, const MmluData& data, const MmluOptions& options,
                         const Tokenizer& tokenizer, const MmluReport& report) {
  MmluHarness out;
  out.task = choice_task("mmlu", options.protocol, "57 subjects, multiple choice", {}, nullptr);
  out.task.metrics = {{"acc"}};
  out.data.path = path;
  out.data.content_hash = data.content_hash;
  out.plan.shots = options.shots;
  out.plan.partial = report.partial;
  Sha256 asked;
  for (const MmluItem& answered : report.items) {
    const MmluSubject& subject =
        *std::find_if(data.subjects.begin(), data.subjects.end(),
                      [&](const MmluSubject& s) { return s.name == answered.subject; });
    const MmluQuestion& question = question_of(subject, answered.index);
    const MmluPrompt prompt = mmlu_prompt(options, subject, question, answered.shots, tokenizer);
    const size_t place = out.data.items.size();
    out.data.items.push_back(item_of(subject, question, prompt));
    out.plan.asked.push_back(place);
    TaskItemResult& result = out.report.results.emplace_back();
    result.item = place;
    result.prompt_sha256 = answered.prompt_sha256;
    result.prediction = answered.prediction;
    result.values = {{answered.correct ? 1.0 : 0.0}};
    for (size_t i = 0; i < 4; ++i) {
      TaskRequest& request = out.plan.requests.emplace_back();
      request.item = place;
      request.context = prompt.text;
      request.continuation = out.data.items.back().continuations[i];
      request.cut = answered.cut_tokens > 0;
      result.log_likelihoods.push_back(answered.log_probs[i]);
    }
    asked.update(answered.prompt_sha256);
  }
  out.plan.request_hash = hex(asked.finish());
  out.report.scores.push_back(score_of("", report.micro));
  for (const auto& [name, accuracy] : report.subjects) out.report.scores.push_back(score_of(name, accuracy));
  return out;
}

}  // namespace qlora
