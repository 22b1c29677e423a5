#include "eval/tasks/run_task.h"

#include <algorithm>

#include "eval/answer_slots.h"

namespace qlora {
namespace {

void check_items(const Task& task, size_t answers, size_t items) {
  QLORA_CHECK(answers == items, failure, "task {}: answers to {} items of {}", task.name, answers, items);
}

// What ends a text beside stop strings: the tokenizer's EOS, and the model's own, of which it may have
// several.
std::vector<int32_t> ends(const Lm& lm, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = lm.end_ids();
  const int32_t eos = tokenizer.special().eos;
  if (eos >= 0 && std::find(ids.begin(), ids.end(), eos) == ids.end()) ids.push_back(eos);
  return ids;
}

// Texts of all requests, subject by subject.
std::vector<std::string> ask_texts(Lm& lm, const Tokenizer& tokenizer, const Task& task, const TaskPlan& plan,
                                   std::span<const SubjectIndex> who) {
  std::vector<GenerateRequest> requests;
  const std::vector<int32_t> stop_ids = ends(lm, tokenizer);
  for (SubjectIndex subject : who)
    for (const TaskRequest& r : plan.requests)
      requests.push_back({.context = r.context_tokens,
                          .max_new_tokens = plan.max_new_tokens,
                          .stop_ids = stop_ids,
                          .subject = subject,
                          .stop_strings = task.until});
  const auto ids = lm.generate(requests);
  check_answer_count("generate", ids.size(), requests.size());
  std::vector<std::string> texts;
  for (const auto& answer : ids) texts.push_back(cut_at_stops(tokenizer.decode(answer, true), task.until));
  return texts;
}

std::vector<LogLikelihoodAnswer> ask_likelihoods(Lm& lm, const TaskPlan& plan,
                                                 std::span<const SubjectIndex> who) {
  std::vector<LogLikelihoodRequest> requests;
  for (SubjectIndex subject : who)
    for (const TaskRequest& r : plan.requests)
      requests.push_back({r.context_tokens, r.continuation_tokens, subject});
  std::vector<LogLikelihoodAnswer> answers = lm.log_likelihood(requests);
  check_answer_count("log_likelihood", answers.size(), requests.size());
  return answers;
}

// One entry an item, subject by subject.
std::vector<ItemAnswer> ask(Lm& lm, const Tokenizer& tokenizer, const Task& task, const TaskPlan& plan,
                            std::span<const SubjectIndex> who) {
  const size_t n = plan.requests.size();
  std::vector<ItemAnswer> items;
  if (task.kind == TaskKind::generate) {
    for (std::string& text : ask_texts(lm, tokenizer, task, plan, who))
      items.emplace_back().text = std::move(text);
    return items;
  }
  const auto answers = ask_likelihoods(lm, plan, who);
  for (size_t i = 0; i < answers.size();) {
    ItemAnswer& item = items.emplace_back();
    const size_t subject = i / n * n, asked = plan.requests[i - subject].item;
    double sum = 0;
    for (; i < subject + n && plan.requests[i - subject].item == asked; ++i) {
      sum += answers[i].log_likelihood;
      if (task.kind == TaskKind::rolling) continue;
      item.log_likelihoods.push_back(static_cast<float>(answers[i].log_likelihood));
      item.greedy.push_back(answers[i].greedy);
    }
    if (task.kind == TaskKind::rolling) item.log_likelihoods = {static_cast<float>(sum)};
  }
  return items;
}

// The result of the item with these requests.
TaskItemResult result_of(const Task& task, const TaskItem& item, std::span<const TaskRequest> requests,
                         const ItemAnswer& said) {
  TaskItemResult result;
  result.item = requests[0].item;
  result.prompt_sha256 = item_hash(requests);
  result.log_likelihoods = said.log_likelihoods;
  result.greedy = said.greedy;
  result.text = said.text;
  TaskAnswer answer;
  answer.log_likelihoods.assign(said.log_likelihoods.begin(), said.log_likelihoods.end());
  answer.greedy = said.greedy;
  if (task.kind == TaskKind::generate)
    for (const AnswerFilter& filter : task.filters)
      result.extracted.push_back(filter.extract(item, result.text));
  if (task.kind == TaskKind::rolling)
    for (const TaskRequest& r : requests)
      answer.scored_tokens += static_cast<int64_t>(r.continuation_tokens.size());
  if (task.kind == TaskKind::choice) result.prediction = likeliest(answer);
  if (task.kind == TaskKind::continuation) result.prediction = answer.greedy[0] ? 0 : -1;
  for (const Metric& metric : task.metrics) {
    answer.text = result.text;
    for (size_t f = 0; f < task.filters.size(); ++f)
      if (task.filters[f].name == metric.filter) answer.text = result.extracted[f];
    result.values.push_back(task.value(metric, item, answer));
  }
  return result;
}

}  // namespace

std::string cut_at_stops(std::string text, std::span<const std::string> stops) {
  for (const std::string& stop : stops) text.resize(std::min(text.find(stop), text.size()));
  return text;
}

TaskReport report_task(const Task& task, const TaskData& data, const TaskPlan& plan,
                       std::span<const ItemAnswer> answers) {
  check_items(task, answers.size(), plan.asked.size());
  TaskReport report;
  size_t lo = 0;
  for (const ItemAnswer& answer : answers) {
    size_t hi = lo + 1;
    while (hi < plan.requests.size() && plan.requests[hi].item == plan.requests[lo].item) ++hi;
    report.results.push_back(result_of(task, data.items[plan.requests[lo].item],
                                       std::span(plan.requests).subspan(lo, hi - lo), answer));
    lo = hi;
  }
  report.scores = score_task(task, data, report.results);
  return report;
}

std::vector<TaskReport> run_task(Lm& lm, const Tokenizer& tokenizer, const Task& task, const TaskData& data,
                                 const TaskPlan& plan, std::span<const SubjectIndex> who) {
  const std::vector<ItemAnswer> answers = ask(lm, tokenizer, task, plan, who);
  check_items(task, answers.size(), plan.asked.size() * who.size());
  std::vector<TaskReport> reports;
  for (size_t s = 0; s < who.size(); ++s)
    reports.push_back(
        report_task(task, data, plan, std::span(answers).subspan(s * plan.asked.size(), plan.asked.size())));
  return reports;
}

}  // namespace qlora
