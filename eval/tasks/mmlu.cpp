#include "eval/tasks/mmlu.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/base/hash.h"

namespace qlora {
namespace {

constexpr std::array<const char*, 4> kLetters = {"A", "B", "C", "D"};

std::string render(const MmluQuestion& q, bool with_answer) {
  std::string text = q.question;
  for (size_t i = 0; i < 4; ++i) text += fmt::format("\n{}. {}", kLetters[i], q.choices[i]);
  text += "\nAnswer:";
  if (with_answer) text += fmt::format(" {}\n\n", kLetters[static_cast<size_t>(q.answer)]);
  return text;
}

// What encode(prompt + " A") adds, for each letter.
std::array<int32_t, 4> answer_tokens(const Tokenizer& tokenizer, const std::string& prompt,
                                     size_t context_size) {
  std::array<int32_t, 4> ids{};
  for (size_t i = 0; i < 4; ++i) {
    std::vector<int32_t> joint = tokenizer.encode(prompt + " " + kLetters[i], true);
    size_t added = joint.size() > context_size ? joint.size() - context_size : 0;
    QLORA_CHECK(added == 1, data,
                "MMLU protocol hendrycks: the answer ` {}` is {} tokens after the prompt; it must be one",
                kLetters[i], added);
    ids[i] = joint.back();
    for (size_t j = 0; j < i; ++j)
      QLORA_CHECK(ids[i] != ids[j], data,
                  "MMLU protocol hendrycks: the answers ` {}` and ` {}` have the same token {}", kLetters[j],
                  kLetters[i], ids[i]);
  }
  return ids;
}

Accuracy accuracy(int64_t right, int64_t n) {
  Accuracy a;
  a.n = n;
  if (n == 0) return a;
  a.value = static_cast<double>(right) / static_cast<double>(n);
  if (n > 1) a.standard_error = std::sqrt(a.value * (1 - a.value) / static_cast<double>(n - 1));
  return a;
}

void aggregate(MmluReport& report, const MmluData& data) {
  int64_t all_right = 0, all = 0;
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
    all_right += right;
    all += n;
    sum += a.value;
    variance_known = variance_known && a.standard_error.has_value();
    if (variance_known) variance += *a.standard_error * *a.standard_error;
  }
  report.micro = accuracy(all_right, all);
  auto subjects = static_cast<double>(report.subjects.size());
  report.macro.n = static_cast<int64_t>(report.subjects.size());
  if (subjects == 0) return;
  report.macro.value = sum / subjects;
  if (variance_known) report.macro.standard_error = std::sqrt(variance) / subjects;
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
      report.warnings.push_back(fmt::format("letter bias: {} of {} predictions are {}", same, n,
                                            kLetters[static_cast<size_t>(letter)]));
  }
}

}  // namespace

std::string mmlu_prompt(const MmluSubject& subject, const MmluQuestion& question, int64_t shots) {
  std::string name = " " + subject.name;
  std::replace(name.begin(), name.end(), '_', ' ');
  std::string prompt =
      fmt::format("The following are multiple choice questions (with answers) about {}.\n\n", name);
  for (int64_t i = 0; i < shots; ++i) prompt += render(subject.dev[static_cast<size_t>(i)], true);
  return prompt + render(question, false);
}

MmluPlan plan_mmlu(const MmluData& data, const MmluOptions& options, const Tokenizer& tokenizer,
                   int64_t context_length) {
  MmluPlan plan;
  for (const MmluSubject& s : data.subjects) {
    auto asked = static_cast<int64_t>(s.questions.size());
    if (options.limit > 0) asked = std::min(asked, options.limit);
    for (int64_t i = 0; i < asked; ++i) {
      const MmluQuestion& q = s.questions[static_cast<size_t>(i)];
      MmluItem item;
      item.subject = s.name;
      item.index = q.index;
      item.gold = q.answer;
      std::string prompt;
      std::vector<int32_t> context;
      for (item.shots = options.shots;; --item.shots) {
        prompt = mmlu_prompt(s, q, item.shots);
        context = tokenizer.encode(prompt, true);
        if (static_cast<int64_t>(context.size()) <= context_length) break;
        QLORA_CHECK(item.shots > 0, data,
                    "MMLU {} row {}: {} tokens without any shot, but the model's context is {}", s.name,
                    q.index + 1, context.size(), context_length);
      }
      item.prompt_sha256 = hex(sha256(prompt));
      item.prompt_tokens = static_cast<int64_t>(context.size());
      plan.max_prompt_tokens = std::max(plan.max_prompt_tokens, item.prompt_tokens);
      plan.dropped_shots += options.shots - item.shots;
      plan.truncated_prompts += item.shots < options.shots ? 1 : 0;
      std::array<int32_t, 4> ids = answer_tokens(tokenizer, prompt, context.size());
      QLORA_CHECK(plan.items.empty() || ids == plan.letter_ids, data,
                  "MMLU {} row {}: its answer tokens differ from those of the other questions", s.name,
                  q.index + 1);
      plan.letter_ids = ids;
      plan.items.push_back(std::move(item));
      plan.contexts.push_back(std::move(context));
    }
  }
  QLORA_CHECK(!plan.items.empty(), data, "MMLU: no question to ask");
  for (size_t i = 0; i < 4; ++i) plan.letter_tokens[i] = tokenizer.token(plan.letter_ids[i]);
  return plan;
}

std::vector<MmluReport> run_mmlu(Lm& lm, const Tokenizer& tokenizer, const MmluData& data,
                                 const MmluOptions& options, std::span<const SubjectIndex> who) {
  const MmluPlan plan = plan_mmlu(data, options, tokenizer, lm.context_length());
  std::vector<NextTokenRequest> requests;
  for (SubjectIndex subject : who)
    for (const std::vector<int32_t>& context : plan.contexts)
      requests.push_back({context, {plan.letter_ids.begin(), plan.letter_ids.end()}, subject});
  const std::vector<NextTokenAnswer> answers = lm.next_token(requests);

  std::vector<MmluReport> reports;
  for (size_t r = 0; r < who.size(); ++r) {
    MmluReport report;
    report.items = plan.items;
    report.letter_ids = plan.letter_ids;
    report.letter_tokens = plan.letter_tokens;
    report.truncated_prompts = plan.truncated_prompts;
    report.dropped_shots = plan.dropped_shots;
    report.max_prompt_tokens = plan.max_prompt_tokens;
    report.partial = options.limit > 0 || !options.subjects.empty();
    for (size_t i = 0; i < plan.items.size(); ++i) {
      const NextTokenAnswer& a = answers[r * plan.items.size() + i];
      MmluItem& item = report.items[i];
      std::copy_n(a.logits.begin(), 4, item.logits.begin());
      for (size_t j = 0; j < 4; ++j)
        item.log_probs[j] = static_cast<float>(static_cast<double>(a.logits[j]) - a.log_sum_exp);
      item.prediction =
          static_cast<int>(std::max_element(a.logits.begin(), a.logits.end()) - a.logits.begin());
      item.correct = item.prediction == item.gold;
    }
    aggregate(report, data);
    add_warnings(report);
    reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace qlora
