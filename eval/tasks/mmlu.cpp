#include "eval/tasks/mmlu.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "eval/answer_slots.h"

namespace qlora {
namespace {

using P = MmluProtocol;

constexpr std::array<const char*, 4> kLetters = {"A", "B", "C", "D"};

// Tokens that a prompt may have, and who says so.
struct Window {
  int64_t size = 0;
  std::string of;
};

Window window_of(const MmluOptions& options, const P& protocol, int64_t context_length) {
  if (options.max_length > 0 && options.max_length <= context_length)
    return {options.max_length, "the given limit (--max-length)"};
  if (options.max_length == 0 && protocol.window > 0 && protocol.window <= context_length)
    return {protocol.window, fmt::format("the limit of protocol {}", protocol.name)};
  return {context_length, "the model's context"};
}

struct Read {
  std::vector<int32_t> context;
  int64_t shots = 0, cut = 0;
  MmluPrompt prompt;
};

int64_t size_of(const std::vector<int32_t>& v) {
  return static_cast<int64_t>(v.size());
}

std::string place_of(const MmluSubject& s, const MmluQuestion& q) {
  return fmt::format("MMLU {} row {}", s.name, q.index + 1);
}

// The prompt that fits into the window, by the protocol's rule for those that do not.
Read read_prompt(const MmluSubject& s, const MmluQuestion& q, const MmluOptions& options, const P& protocol,
                 const Tokenizer& tokenizer, const Window& window) {
  Read read;
  read.shots = q.rendered.empty() ? options.shots : q.rendered_shots;
  for (;; --read.shots) {
    read.prompt = mmlu_prompt(options, s, q, read.shots, tokenizer);
    read.context = encode(tokenizer, read.prompt);
    if (size_of(read.context) <= window.size || read.shots == 0 || !q.rendered.empty() ||
        protocol.overlong == P::Overlong::cut_left)
      break;
  }
  read.cut = std::max<int64_t>(size_of(read.context) - window.size, 0);
  if (read.cut == 0) return read;
  QLORA_CHECK(protocol.overlong != P::Overlong::drop_shots, data,
              "{}: {} tokens without any shot, but {} is {}", place_of(s, q), read.context.size(), window.of,
              window.size);
  const auto begin = read.context.begin();
  if (protocol.overlong == P::Overlong::cut_left)
    read.context.erase(begin, begin + read.cut);
  else
    read.context.resize(static_cast<size_t>(window.size));
  return read;
}

// What stands for a letter after the prompt: what encode(prompt + " A") adds, or the first token of "A".
std::vector<int32_t> letter_tokens(const P& protocol, const Read& read, const Tokenizer& tokenizer,
                                   const char* letter) {
  if (protocol.letter == P::Letter::alone) {
    std::vector<int32_t> ids = tokenizer.encode(letter, false);
    if (ids.size() > 1) ids.resize(1);
    return ids;
  }
  const size_t before = read.context.size() + static_cast<size_t>(read.cut);
  std::vector<int32_t> joint = encode(tokenizer, read.prompt, read.prompt.letter_gap + letter);
  return joint.size() <= before
             ? std::vector<int32_t>{}
             : std::vector<int32_t>(joint.begin() + static_cast<int64_t>(before), joint.end());
}

std::array<std::vector<int32_t>, 4> letters_of(const std::string& place, const P& protocol, const Read& read,
                                               const Tokenizer& tokenizer) {
  std::array<std::vector<int32_t>, 4> letters;
  for (size_t i = 0; i < 4; ++i) {
    letters[i] = letter_tokens(protocol, read, tokenizer, kLetters[i]);
    QLORA_CHECK(!letters[i].empty(), data, "{}, protocol {}: the answer `{}{}` adds no token to the prompt",
                place, protocol.name, read.prompt.letter_gap, kLetters[i]);
    for (size_t j = 0; j < i; ++j)
      QLORA_CHECK(letters[i] != letters[j], data,
                  "{}, protocol {}: the answers {} and {} have the same tokens", place, protocol.name,
                  kLetters[j], kLetters[i]);
  }
  return letters;
}

bool single(const std::array<std::vector<int32_t>, 4>& letters) {
  return std::all_of(letters.begin(), letters.end(), [](const auto& l) { return l.size() == 1; });
}

// Every question has the same four tokens, or each keeps its own.
void settle_letters(MmluPlan& plan, const Tokenizer& tokenizer) {
  const auto& first = plan.letters.front();
  for (size_t i = 0; i < 4; ++i) {
    plan.letter_ids[i] = first[i].back();
    plan.letter_tokens[i] = tokenizer.token(plan.letter_ids[i]);
  }
  if (!single(first)) return;
  for (const auto& letters : plan.letters)
    if (letters != first) return;
  plan.letters.clear();
}

// The right letter and EOS after it, where the model's context has a place for the letter.
void add_answers(MmluPlan& plan, const P& protocol, const Tokenizer& tokenizer, int64_t context_length) {
  plan.answers.resize(plan.items.size());
  const int32_t eos = tokenizer.special().eos;
  if (!protocol.answer_loss || !plan.letters.empty() || eos < 0) return;
  for (size_t i = 0; i < plan.items.size(); ++i)
    if (size_of(plan.contexts[i]) < context_length)
      plan.answers[i] = {plan.letter_ids[static_cast<size_t>(plan.items[i].gold)], eos};
}

void add_request(Sha256& hash, const P& protocol, const MmluPrompt& prompt) {
  const std::string_view end("\0", 1);
  for (const char* letter : kLetters) {
    hash.update(prompt.text).update(end);
    if (protocol.letter != P::Letter::alone) hash.update(prompt.letter_gap);
    hash.update(letter).update(end);
  }
}

// Of one question and one subject.
struct Answers {
  std::array<float, 4> logits{}, log_probs{};
  double log_sum_exp = 0;
  std::array<bool, 4> greedy{};
  std::optional<double> loss = {};
};

std::vector<Answers> ask_tokens(Lm& lm, const MmluPlan& plan, std::span<const SubjectIndex> who) {
  std::vector<NextTokenRequest> requests;
  for (SubjectIndex subject : who)
    for (size_t i = 0; i < plan.contexts.size(); ++i)
      requests.push_back(
          {plan.contexts[i], {plan.letter_ids.begin(), plan.letter_ids.end()}, subject, plan.answers[i]});
  const std::vector<NextTokenAnswer> all = lm.next_token(requests);
  check_answer_count("next_token", all.size(), requests.size());
  std::vector<Answers> answers;
  for (const NextTokenAnswer& a : all) {
    Answers& one = answers.emplace_back();
    one.log_sum_exp = a.log_sum_exp;
    for (size_t i = 0; i < 4; ++i) {
      one.logits[i] = a.logits[i];
      one.greedy[i] = a.likeliest == plan.letter_ids[i];
      one.log_probs[i] = static_cast<float>(static_cast<double>(a.logits[i]) - a.log_sum_exp);
    }
    if (a.log_likelihood) one.loss = -*a.log_likelihood / 2;
  }
  return answers;
}

// Answers of several tokens: the sum of their log-probabilities.
std::vector<Answers> ask_texts(Lm& lm, const MmluPlan& plan, std::span<const SubjectIndex> who) {
  std::vector<LogLikelihoodRequest> requests;
  for (SubjectIndex subject : who)
    for (size_t i = 0; i < plan.items.size(); ++i)
      for (const std::vector<int32_t>& letter : plan.letters[i])
        requests.push_back({plan.contexts[i], letter, subject});
  const std::vector<LogLikelihoodAnswer> all = lm.log_likelihood(requests);
  check_answer_count("log_likelihood", all.size(), requests.size());
  std::vector<Answers> answers(all.size() / 4);
  for (size_t i = 0; i < all.size(); ++i) {
    answers[i / 4].log_probs[i % 4] = static_cast<float>(all[i].log_likelihood);
    answers[i / 4].greedy[i % 4] = all[i].greedy;
  }
  for (Answers& one : answers) one.logits = one.log_probs;
  return answers;
}

}  // namespace

MmluPlan plan_mmlu(const MmluData& data, const MmluOptions& options, const Tokenizer& tokenizer,
                   int64_t context_length) {
  const P& protocol = mmlu_protocol_named(options.protocol);
  const Window window = window_of(options, protocol, context_length);
  MmluPlan plan;
  Sha256 requests;
  for (const MmluSubject& s : data.subjects) {
    auto asked = static_cast<int64_t>(s.questions.size());
    if (options.limit > 0) asked = std::min(asked, options.limit);
    if (options.samples > 0)
      asked = std::min(asked, options.samples - static_cast<int64_t>(plan.items.size()));
    for (int64_t i = 0; i < asked; ++i) {
      const MmluQuestion& q = s.questions[static_cast<size_t>(i)];
      Read read = read_prompt(s, q, options, protocol, tokenizer, window);
      MmluItem item;
      item.subject = s.name;
      item.index = q.index;
      item.gold = q.answer;
      item.shots = read.shots;
      item.cut_tokens = read.cut;
      item.prompt_sha256 = hex(sha256(read.prompt.text));
      item.prompt_tokens = size_of(read.context);
      plan.max_prompt_tokens = std::max(plan.max_prompt_tokens, item.prompt_tokens);
      plan.dropped_shots += options.shots - item.shots;
      plan.cut_tokens += item.cut_tokens;
      plan.truncated_prompts += item.shots < options.shots || item.cut_tokens > 0 ? 1 : 0;
      add_request(requests, protocol, read.prompt);
      plan.letters.push_back(letters_of(place_of(s, q), protocol, read, tokenizer));
      plan.items.push_back(std::move(item));
      plan.contexts.push_back(std::move(read.context));
    }
  }
  QLORA_CHECK(!plan.items.empty(), data, "MMLU: no question to ask");
  plan.request_hash = hex(requests.finish());
  settle_letters(plan, tokenizer);
  add_answers(plan, protocol, tokenizer, context_length);
  return plan;
}

MmluReport start_report(const MmluPlan& plan, const MmluOptions& options) {
  MmluReport report;
  report.items = plan.items;
  report.letter_ids = plan.letter_ids;
  report.letter_tokens = plan.letter_tokens;
  report.truncated_prompts = plan.truncated_prompts;
  report.dropped_shots = plan.dropped_shots;
  report.cut_tokens = plan.cut_tokens;
  report.max_prompt_tokens = plan.max_prompt_tokens;
  report.request_hash = plan.request_hash;
  report.partial = options.limit > 0 || options.samples > 0 || !options.subjects.empty();
  return report;
}

std::vector<MmluReport> run_mmlu(Lm& lm, const Tokenizer& tokenizer, const MmluData& data,
                                 const MmluOptions& options, std::span<const SubjectIndex> who) {
  return run_mmlu(lm, plan_mmlu(data, options, tokenizer, lm.context_length()), data, options, who);
}

std::vector<MmluReport> run_mmlu(Lm& lm, const MmluPlan& plan, const MmluData& data,
                                 const MmluOptions& options, std::span<const SubjectIndex> who) {
  const std::vector<Answers> answers =
      plan.letters.empty() ? ask_tokens(lm, plan, who) : ask_texts(lm, plan, who);
  std::vector<MmluReport> reports;
  for (size_t r = 0; r < who.size(); ++r) {
    MmluReport report = start_report(plan, options);
    for (size_t i = 0; i < plan.items.size(); ++i) {
      const Answers& a = answers[r * plan.items.size() + i];
      MmluItem& item = report.items[i];
      item.logits = a.logits;
      item.log_probs = a.log_probs;
      item.log_sum_exp = a.log_sum_exp;
      item.greedy = a.greedy;
      item.answer_loss = a.loss;
      item.prediction =
          static_cast<int>(std::max_element(a.logits.begin(), a.logits.end()) - a.logits.begin());
      item.correct = item.prediction == item.gold;
    }
    summarize_mmlu(report, data, options);
    reports.push_back(std::move(report));
  }
  return reports;
}

std::string explain_mmlu(const MmluPlan& plan, size_t item, const MmluData& data, const MmluOptions& options,
                         const Tokenizer& tokenizer) {
  const MmluItem& asked = plan.items.at(item);
  for (const MmluSubject& s : data.subjects) {
    if (s.name != asked.subject) continue;
    for (const MmluQuestion& q : s.questions) {
      if (q.index != asked.index) continue;
      const MmluPrompt prompt = mmlu_prompt(options, s, q, asked.shots, tokenizer);
      const bool alone = mmlu_protocol_named(options.protocol).letter == P::Letter::alone;
      std::string text =
          fmt::format("{} row {}, protocol {}, {} shots, {} tokens, SHA-256 {}\n", s.name, q.index + 1,
                      options.protocol, asked.shots, asked.prompt_tokens, asked.prompt_sha256);
      text += fmt::format("----- prompt -----\n{}\n----- end -----\n", prompt.text);
      if (asked.cut_tokens > 0) text += fmt::format("of it {} tokens were cut\n", asked.cut_tokens);
      for (size_t i = 0; i < 4; ++i) {
        text += fmt::format("answer `{}{}`:", alone ? "" : prompt.letter_gap, kLetters[i]);
        const std::vector<int32_t> ids =
            plan.letters.empty() ? std::vector<int32_t>{plan.letter_ids[i]} : plan.letters[item][i];
        for (int32_t id : ids) text += fmt::format(" token {} ({})", id, tokenizer.token(id));
        text += "\n";
      }
      return text;
    }
  }
  fail(ErrorKind::usage, "MMLU: no question {} of {}", asked.index + 1, asked.subject);
}

}  // namespace qlora
