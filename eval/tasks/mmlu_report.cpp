// Averages over the answers of MMLU: subjects, groups, the whole; and what looks wrong.
#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "eval/tasks/mmlu.h"

namespace qlora {
namespace {

// categories.py of hendrycks/test. lm-eval's map is the same but for anatomy, which it counts to stem.
const std::vector<std::pair<std::string_view, std::vector<std::string_view>>> kGroups = {
    {"stem",
     {"abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
      "college_mathematics", "college_physics", "computer_security", "conceptual_physics",
      "electrical_engineering", "elementary_mathematics", "high_school_biology", "high_school_chemistry",
      "high_school_computer_science", "high_school_mathematics", "high_school_physics",
      "high_school_statistics", "machine_learning"}},
    {"humanities",
     {"formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
      "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios",
      "philosophy", "prehistory", "professional_law", "world_religions"}},
    {"social_sciences",
     {"econometrics", "high_school_geography", "high_school_government_and_politics",
      "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology", "human_sexuality",
      "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy"}},
    {"other",
     {"anatomy", "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
      "management", "marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting",
      "professional_medicine", "virology"}},
};

Accuracy accuracy(int64_t right, int64_t n) {
  Accuracy a;
  a.n = n;
  if (n == 0) return a;
  a.value = static_cast<double>(right) / static_cast<double>(n);
  if (n > 1) a.standard_error = std::sqrt(a.value * (1 - a.value) / static_cast<double>(n - 1));
  return a;
}

// Within subjects only, as lm-eval pools them: sqrt(sum of (n_i - 1) n_i se_i^2 / (N - K) / N).
std::optional<double> pooled_error(std::span<const Accuracy> subjects) {
  double sum = 0, n = 0;
  for (const Accuracy& a : subjects) {
    auto of_subject = static_cast<double>(a.n);
    if (a.n > 1) sum += (of_subject - 1) * of_subject * *a.standard_error * *a.standard_error;
    n += of_subject;
  }
  const double freedom = n - static_cast<double>(subjects.size());
  if (freedom <= 0) return std::nullopt;
  return std::sqrt(sum / freedom / n);
}

Accuracy over_questions(std::span<const Accuracy> subjects, bool pooled) {
  double right = 0;
  int64_t n = 0;
  for (const Accuracy& a : subjects) {
    right += a.value * static_cast<double>(a.n);
    n += a.n;
  }
  Accuracy all = accuracy(std::llround(right), n);
  if (pooled && subjects.size() > 1) all.standard_error = pooled_error(subjects);
  return all;
}

void add_groups(MmluReport& report, bool pooled) {
  for (const char* map : {"hendrycks", "lm_eval"})
    for (const auto& [group, members] : kGroups) {
      std::vector<Accuracy> of_group;
      for (const auto& [name, a] : report.subjects)
        if ((map[0] == 'h' ? mmlu_group_hendrycks(name) : mmlu_group_lm_eval(name)) == group)
          of_group.push_back(a);
      if (of_group.empty()) continue;
      report.groups.emplace_back(fmt::format("{}@{}", group, map), over_questions(of_group, pooled));
    }
}

void aggregate(MmluReport& report, const MmluData& data, bool pooled) {
  double sum = 0, variance = 0;
  bool variance_known = true;
  for (const MmluSubject& s : data.subjects) {
    int64_t right = 0, n = 0;
    for (const MmluItem& item : report.items) {
      if (item.subject != s.name) continue;
      ++n;
      right += item.correct ? 1 : 0;
    }
    if (n == 0) continue;
    Accuracy a = accuracy(right, n);
    report.subjects.emplace_back(s.name, a);
    sum += a.value;
    variance_known = variance_known && a.standard_error.has_value();
    if (variance_known) variance += *a.standard_error * *a.standard_error;
  }
  std::vector<Accuracy> all;
  for (const auto& [name, a] : report.subjects) all.push_back(a);
  report.micro = over_questions(all, pooled);
  auto subjects = static_cast<double>(report.subjects.size());
  report.macro.n = static_cast<int64_t>(report.subjects.size());
  if (subjects == 0) return;
  report.macro.value = sum / subjects;
  if (variance_known) report.macro.standard_error = std::sqrt(variance) / subjects;
}

void add_answer_loss(MmluReport& report) {
  Accuracy loss;
  double squares = 0;
  for (const MmluItem& item : report.items) {
    if (!item.answer_loss) continue;
    ++loss.n;
    loss.value += *item.answer_loss;
  }
  if (loss.n == 0) return;
  const auto n = static_cast<double>(loss.n);
  loss.value /= n;
  for (const MmluItem& item : report.items)
    if (item.answer_loss) squares += (*item.answer_loss - loss.value) * (*item.answer_loss - loss.value);
  if (loss.n > 1) loss.standard_error = std::sqrt(squares / (n - 1) / n);
  report.answer_loss = loss;
}

// A score at chance, or one letter nearly always, more often means a wrong prompt or answer token than a weak
// model.
void add_warnings(MmluReport& report) {
  auto n = static_cast<int64_t>(report.items.size());
  if (n < 100) return;
  if (report.micro.value >= 0.22 && report.micro.value <= 0.28)
    report.warnings.push_back(fmt::format(
        "accuracy {:.3f} is chance level: check the answer tokens and whether the model needs a template",
        report.micro.value));
  for (int letter = 0; letter < 4; ++letter) {
    auto same = std::count_if(report.items.begin(), report.items.end(),
                              [&](const MmluItem& i) { return i.prediction == letter; });
    if (10 * same > 6 * n)
      report.warnings.push_back(
          fmt::format("letter bias: {} of {} predictions are {}", same, n, "ABCD"[letter]));
  }
}

}  // namespace

std::string_view mmlu_group_hendrycks(std::string_view subject) {
  for (const auto& [group, members] : kGroups)
    if (std::find(members.begin(), members.end(), subject) != members.end()) return group;
  return {};
}

std::string_view mmlu_group_lm_eval(std::string_view subject) {
  return subject == "anatomy" ? "stem" : mmlu_group_hendrycks(subject);
}

void summarize_mmlu(MmluReport& report, const MmluData& data, const MmluOptions& options) {
  const MmluProtocol& protocol = mmlu_protocol_named(options.protocol);
  report.macro_first = protocol.macro;
  aggregate(report, data, protocol.pooled_error);
  add_groups(report, protocol.pooled_error);
  add_answer_loss(report);
  add_warnings(report);
}

}  // namespace qlora
