#pragma once
// MMLU (Hendrycks et al. 2021): the requests of a protocol (mmlu_protocol.h), and their answers as scores.
// The prediction is the letter with the largest logit, or log-likelihood, after the prompt, among the four.

#include <optional>
#include <span>

#include "eval/lm.h"
#include "eval/tasks/mmlu_data.h"
#include "eval/tasks/mmlu_protocol.h"

namespace qlora {

struct MmluItem {
  std::string subject;
  int64_t index = 0;
  std::string prompt_sha256;
  int64_t prompt_tokens = 0, shots = 0;  // what the model reads: shots that fitted
  int64_t cut_tokens = 0;                // of the prompt's beginning or end, beyond whole shots
  int gold = 0, prediction = 0;
  bool correct = false;
  std::array<float, 4> logits{};      // of the answer tokens; the log-likelihoods where an answer has several
  std::array<float, 4> log_probs{};   // over the whole vocabulary
  double log_sum_exp = 0;             // log_probs are logits less this
  std::array<bool, 4> greedy{};       // whether the letter is what the model would have written
  std::optional<double> answer_loss;  // MmluReport::answer_loss, of this question
};

struct Accuracy {
  double value = 0;
  std::optional<double> standard_error;  // none when it cannot be estimated (one question)
  int64_t n = 0;
};

struct MmluReport {
  std::vector<MmluItem> items;                             // in order of subjects and files
  std::vector<std::pair<std::string, Accuracy>> subjects;  // same order as the data
  // Over the questions of a group of subjects, by both maps that are in use (they differ in anatomy):
  // "stem@hendrycks", "stem@lm_eval", ...; only groups that were asked something.
  std::vector<std::pair<std::string, Accuracy>> groups;
  Accuracy micro;            // over questions (Hendrycks' "average accuracy")
  Accuracy macro;            // mean over subjects (qlora.py's callback)
  bool macro_first = false;  // the protocol publishes the macro average
  // Where the protocol asks for it: -log-probability of the right letter's token and of EOS after it, mean of
  // the two and over questions (qlora.py's mmlu_loss). Questions with no place left for the letter, and
  // tokenizers without EOS, have none.
  std::optional<Accuracy> answer_loss;
  std::array<int32_t, 4> letter_ids{};
  std::array<std::string, 4> letter_tokens;
  int64_t truncated_prompts = 0, dropped_shots = 0, cut_tokens = 0, max_prompt_tokens = 0;
  std::string request_hash;           // MmluPlan's
  bool partial = false;               // limit, samples or a choice of subjects
  std::vector<std::string> warnings;  // chance level, letter bias
};

// The requests of all questions, with what is known of each before a model answers.
struct MmluPlan {
  std::vector<MmluItem> items;  // prediction and logits still empty
  std::vector<std::vector<int32_t>> contexts;
  // What follows the context for each letter: the same single tokens for all questions, or, where a tokenizer
  // needs several for a letter, the tokens of this question (then `letters` is not empty).
  std::array<int32_t, 4> letter_ids{};  // the last token of each
  std::array<std::string, 4> letter_tokens;
  std::vector<std::array<std::vector<int32_t>, 4>> letters;
  // The right letter's token and EOS, by question; empty: not asked for, or no place. None of several tokens.
  std::vector<std::vector<int32_t>> answers;
  int64_t truncated_prompts = 0, dropped_shots = 0, cut_tokens = 0, max_prompt_tokens = 0;
  std::string request_hash;  // SHA-256 over all prompts and letters as text: names what was asked
};
// Throws Error(data) when a question does not fit and the protocol cuts nothing, or when the tokenizer gives
// no distinct answer tokens.
MmluPlan plan_mmlu(const MmluData&, const MmluOptions&, const Tokenizer&, int64_t context_length);

// Scores several subjects (adapters of the Lm; -1 = base) in one pooled pass; one report each, same order.
std::vector<MmluReport> run_mmlu(Lm&, const MmluPlan&, const MmluData&, const MmluOptions&,
                                 std::span<const SubjectIndex>);
// Makes the plan too.
std::vector<MmluReport> run_mmlu(Lm&, const Tokenizer&, const MmluData&, const MmluOptions&,
                                 std::span<const SubjectIndex>);

// A report of a plan whose items have no predictions yet: they are to be filled, and summarized.
MmluReport start_report(const MmluPlan&, const MmluOptions&);

// From items with their predictions: accuracies of subjects, groups and the whole, losses, and warnings
// (chance level, one letter nearly always).
void summarize_mmlu(MmluReport&, const MmluData&, const MmluOptions&);

// The group of a subject by the map of hendrycks/test (`stem`, `humanities`, `social_sciences`, `other`) and
// by lm-eval's; empty for a subject that is none of the 57.
std::string_view mmlu_group_hendrycks(std::string_view subject);
std::string_view mmlu_group_lm_eval(std::string_view subject);

// One prompt as the model gets it, with its tokens' count, the answer tokens and what was cut, for people.
std::string explain_mmlu(const MmluPlan&, size_t item, const MmluData&, const MmluOptions&, const Tokenizer&);

}  // namespace qlora
