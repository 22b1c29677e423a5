#pragma once
// What generated texts are read by: patterns, and equality that ignores some characters. Rules and quirks are
// those of lm-evaluation-harness 0.4.13.

#include <string>
#include <string_view>
#include <vector>

#include "core/text/regex.h"
#include "eval/tasks/task.h"

namespace qlora {

inline constexpr std::string_view kNoAnswer = "[invalid]";

// All matches in a text, in order.
std::vector<std::string> all_matches(const Regex&, std::string_view text);
// The first or last match without white space at its ends; kNoAnswer when there is none.
std::string first_match(const Regex&, std::string_view text);
std::string last_match(const Regex&, std::string_view text);

// Without a period at the end (or before a line feed that is the end).
std::string without_final_period(std::string text);
std::string without_characters(std::string_view text, std::string_view unwanted);

// A filter that reads the whole answer.
std::string whole_answer(const TaskItem&, const std::string& text);

// ROUGE-1, -2 and -L by F, each as texts stand (filter `plain`) and by the stems of their words (`stemmed`);
// of several right answers the best counts.
std::vector<Metric> rouge_metrics();
MetricValue rouge_value(const Metric&, const TaskItem&, const TaskAnswer&);

}  // namespace qlora
