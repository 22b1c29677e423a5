#include "eval/tasks/answers.h"

#include <algorithm>

#include "eval/metrics/rouge.h"
#include "eval/tasks/rows.h"

namespace qlora {

std::vector<std::string> all_matches(const Regex& pattern, std::string_view text) {
  std::vector<std::string> matches;
  pattern.each_match(
      text, [&](size_t begin, size_t end) { matches.emplace_back(text.substr(begin, end - begin)); });
  return matches;
}

std::string first_match(const Regex& pattern, std::string_view text) {
  const std::vector<std::string> matches = all_matches(pattern, text);
  return matches.empty() ? std::string(kNoAnswer) : trim(matches.front());
}

std::string last_match(const Regex& pattern, std::string_view text) {
  const std::vector<std::string> matches = all_matches(pattern, text);
  return matches.empty() ? std::string(kNoAnswer) : trim(matches.back());
}

std::string without_final_period(std::string text) {
  if (text.ends_with(".\n")) {
    text.erase(text.size() - 2, 1);
  } else if (text.ends_with('.')) {
    text.pop_back();
  }
  return text;
}

std::string without_characters(std::string_view text, std::string_view unwanted) {
  std::string kept;
  for (char c : text)
    if (unwanted.find(c) == std::string_view::npos) kept += c;
  return kept;
}

std::string whole_answer(const TaskItem&, const std::string& text) {
  return text;
}

std::vector<Metric> rouge_metrics() {
  std::vector<Metric> metrics;
  for (const char* filter : {"plain", "stemmed"})
    for (const char* metric : {"rouge1", "rouge2", "rougeL"})
      metrics.push_back({metric, Aggregation::mean, true, filter});
  return metrics;
}

MetricValue rouge_value(const Metric& metric, const TaskItem& item, const TaskAnswer& answer) {
  const RougeScores scores = rouge_best(item.targets, trim(answer.text), metric.filter == "stemmed");
  return {metric.name == "rouge1"   ? scores.rouge1.f
          : metric.name == "rouge2" ? scores.rouge2.f
                                    : scores.rouge_l.f};
}

}  // namespace qlora
