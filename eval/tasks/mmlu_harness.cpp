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
  item.contexts = {prompt.text};
  for (int i = 0; i < 4; ++i) {
    item.continuations.push_back(prompt.letter_gap + kLetters[i]);
    item.lengths.push_back(1);
  }
  item.gold = q.answer;
  // In the order of the data set's own fields, over which the harness' hash of a document goes.
  nlohmann::ordered_json document = nlohmann::ordered_json::object();
  if (q.rendered.empty()) {
    document = {{"question", q.question}, {"subject", subject.name}, {"choices", q.choices}};
  } else {
    document = {{"subject", subject.name}, {"input", q.rendered}};
  }
  document["answer"] = q.answer;
  item.document = document.dump();
  return item;
}

TaskScore score_of(const Accuracy& accuracy) {
  TaskScore score;
  score.metric = "acc";
  score.filter = "none";
  score.n = accuracy.n;
  score.value = accuracy.value;
  score.standard_error = accuracy.standard_error;
  return score;
}

// The harness' own numbers where its prompts are asked.
std::string version_of(const MmluOptions& options, bool group) {
  if (options.protocol != "lm_eval") return options.protocol;
  return group ? "2" : "1.0";
}

MmluHarness::Subject empty_subject(const std::string& name, const Path& path, const MmluData& data,
                                   const MmluOptions& options, const MmluReport& report) {
  MmluHarness::Subject out;
  out.task = choice_task("mmlu_" + name, version_of(options, false), "MMLU: " + name, {}, nullptr);
  out.name = name;
  out.task.protocol = options.protocol;
  out.task.metrics = {{"acc"}};
  out.data.path = path;
  out.data.content_hash = data.content_hash;
  out.plan.shots = options.shots;
  out.plan.partial = report.partial;
  return out;
}

void add_answer(MmluHarness::Subject& out, const MmluItem& answered, const MmluSubject& subject,
                const MmluOptions& options, const Tokenizer& tokenizer) {
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
    result.greedy.push_back(answered.greedy[i]);
  }
}

HarnessGroup group(const std::string& name, const std::string& alias, const MmluOptions& options,
                   const Accuracy& accuracy) {
  return {name, alias, version_of(options, true), {}, {score_of(accuracy)}};
}

// `mmlu`, and those of its four groups that were asked something. Subjects that are none of the 57 are
// members of `mmlu` itself.
std::vector<HarnessGroup> groups_of(const MmluOptions& options, const MmluReport& report) {
  std::vector<HarnessGroup> groups = {group("mmlu", "mmlu", options, report.micro)};
  for (const std::string name : {"stem", "other", "social_sciences", "humanities"})
    for (const auto& [of_map, accuracy] : report.groups) {
      if (of_map != name + "@lm_eval") continue;
      HarnessGroup one = group("mmlu_" + name, replace_all(name, "_", " "), options, accuracy);
      for (const auto& [subject, unused] : report.subjects)
        if (mmlu_group_lm_eval(subject) == name) one.members.push_back("mmlu_" + subject);
      groups[0].members.push_back(one.name);
      groups.push_back(std::move(one));
    }
  for (const auto& [subject, unused] : report.subjects)
    if (mmlu_group_lm_eval(subject).empty()) groups[0].members.push_back("mmlu_" + subject);
  return groups;
}

const MmluSubject& subject_named(const MmluData& data, const std::string& name) {
  return *std::find_if(data.subjects.begin(), data.subjects.end(),
                       [&](const MmluSubject& s) { return s.name == name; });
}

}  // namespace

std::vector<HarnessTask> MmluHarness::views() const {
  std::vector<HarnessTask> all;
  for (const Subject& s : subjects)
    all.push_back({&s.task, &s.data, &s.plan, &s.report, s.name, s.questions});
  return all;
}

MmluHarness mmlu_harness(const Path& path, const MmluData& data, const MmluOptions& options,
                         const Tokenizer& tokenizer, const MmluReport& report) {
  MmluHarness out;
  for (const auto& [name, accuracy] : report.subjects) {
    const MmluSubject& subject = subject_named(data, name);
    MmluHarness::Subject& one = out.subjects.emplace_back(empty_subject(name, path, data, options, report));
    one.questions = subject.questions.size();
    Sha256 asked;
    for (const MmluItem& answered : report.items) {
      if (answered.subject != name) continue;
      add_answer(one, answered, subject, options, tokenizer);
      asked.update(answered.prompt_sha256);
    }
    one.plan.request_hash = hex(asked.finish());
    one.report.scores.push_back(score_of(accuracy));
  }
  out.groups = groups_of(options, report);
  return out;
}

}  // namespace qlora
