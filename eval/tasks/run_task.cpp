#include "eval/tasks/run_task.h"

#include "eval/answer_slots.h"

namespace qlora {
namespace {

// One entry a request, in the order of the plan.
struct Answers {
  std::vector<LogLikelihoodAnswer> likelihoods;
  std::vector<std::string> texts;
};

std::vector<Answers> ask(Lm& lm, const Tokenizer& tokenizer, const Task& task, const TaskPlan& plan,
                         std::span<const SubjectIndex> who) {
  const size_t n = plan.requests.size();
  std::vector<Answers> answers(who.size());
  if (task.kind == TaskKind::generate) {
    std::vector<GenerateRequest> requests;
    const int32_t eos = tokenizer.special().eos;
    for (SubjectIndex subject : who)
      for (const TaskRequest& r : plan.requests)
        requests.push_back({.context = r.context_tokens,
                            .max_new_tokens = plan.max_new_tokens,
                            .stop_ids = eos >= 0 ? std::vector<int32_t>{eos} : std::vector<int32_t>{},
                            .subject = subject,
                            .stop_strings = task.until});
    const auto ids = lm.generate(requests);
    check_answer_count("generate", ids.size(), requests.size());
    for (size_t i = 0; i < ids.size(); ++i)
      answers[i / n].texts.push_back(cut_at_stops(tokenizer.decode(ids[i], true), task.until));
    return answers;
  }
  std::vector<LogLikelihoodRequest> requests;
  for (SubjectIndex subject : who)
    for (const TaskRequest& r : plan.requests)
      requests.push_back({r.context_tokens, r.continuation_tokens, subject});
  const auto all = lm.log_likelihood(requests);
  check_answer_count("log_likelihood", all.size(), requests.size());
  for (size_t i = 0; i < all.size(); ++i) answers[i / n].likelihoods.push_back(all[i]);
  return answers;
}

// The result of the item whose requests are [lo, hi) of the plan.
TaskItemResult result_of(const Task& task, const TaskItem& item, const TaskPlan& plan, size_t lo, size_t hi,
                         const Answers& answers) {
  TaskItemResult result;
  result.item = plan.requests[lo].item;
  result.prompt_sha256 = item_hash(std::span(plan.requests).subspan(lo, hi - lo));
  TaskAnswer answer;
  if (task.kind == TaskKind::generate) {
    result.text = answers.texts[lo];
    for (const AnswerFilter& filter : task.filters)
      result.extracted.push_back(filter.extract(item, result.text));
  } else if (task.kind == TaskKind::rolling) {
    double sum = 0;
    for (size_t i = lo; i < hi; ++i) {
      sum += answers.likelihoods[i].log_likelihood;
      answer.scored_tokens += static_cast<int64_t>(plan.requests[i].continuation_tokens.size());
    }
    answer.log_likelihoods = {sum};
  } else {
    for (size_t i = lo; i < hi; ++i) {
      answer.log_likelihoods.push_back(answers.likelihoods[i].log_likelihood);
      answer.greedy.push_back(answers.likelihoods[i].greedy);
    }
    result.prediction = task.kind == TaskKind::choice ? likeliest(answer) : answer.greedy[0] ? 0 : -1;
  }
  result.greedy = answer.greedy;
  for (double ll : answer.log_likelihoods) result.log_likelihoods.push_back(static_cast<float>(ll));
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

std::vector<TaskReport> run_task(Lm& lm, const Tokenizer& tokenizer, const Task& task, const TaskData& data,
                                 const TaskPlan& plan, std::span<const SubjectIndex> who) {
  std::vector<TaskReport> reports;
  for (const Answers& answers : ask(lm, tokenizer, task, plan, who)) {
    TaskReport report;
    for (size_t lo = 0; lo < plan.requests.size();) {
      size_t hi = lo + 1;
      while (hi < plan.requests.size() && plan.requests[hi].item == plan.requests[lo].item) ++hi;
      report.results.push_back(result_of(task, data.items[plan.requests[lo].item], plan, lo, hi, answers));
      lo = hi;
    }
    report.scores = score_task(task, data, report.results);
    reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace qlora
