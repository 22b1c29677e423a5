#pragma once
// MMLU (Hendrycks et al. 2021), protocol `hendrycks`, as evaluate.py of hendrycks/test asks and scores it:
//   - header "The following are multiple choice questions (with answers) about  SUBJECT.\n\n" (two spaces),
//   - the first `shots` rows of dev in file order, each "QUESTION\nA. a\nB. b\nC. c\nD. d\nAnswer: X\n\n",
//   - the question in the same form, ending in "Answer:";
//   - the prediction is the letter with the largest logit at the last position, among the four answer tokens.
// Differences on purpose: texts stay as the CSV has them (pandas rewrites "None" and "0.50"); the answer
// token is what encode(prompt + " A") adds to encode(prompt), right for every tokenizer; an over-long prompt
// is measured with the model's own tokenizer against its context length (the script: GPT-2's, 2,048).

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/lm.h"

namespace qlora {

struct MmluQuestion {
  int64_t index = 0;  // row in its file, from 0
  std::string question;
  std::array<std::string, 4> choices;
  int answer = 0;  // 0..3
};

struct MmluSubject {
  std::string name;  // "abstract_algebra"
  std::vector<MmluQuestion> dev, questions;
};

struct MmluData {
  std::string split;
  std::vector<MmluSubject> subjects;  // sorted by name
  std::string content_hash;           // SHA-256 over the names and bytes of the files that were read
};

struct MmluOptions {
  std::string protocol = "hendrycks";
  std::string split = "test";  // test | val
  int64_t shots = 5;           // 0..5
  int64_t limit = 0;  // questions per subject, the first in file order; 0 = all (else the score is partial)
  std::vector<std::string> subjects;  // empty = all that the tree has
};

// Reads DIR/dev/<subject>_dev.csv (with shots > 0) and DIR/<split>/<subject>_<split>.csv: no header, six
// columns (question, A, B, C, D, answer letter), RFC 4180. Throws Error(data) naming file and line, or
// Error(usage) for an unknown protocol or subject (with the nearest).
MmluData read_mmlu(const Path& tree, const MmluOptions&);

// One prompt, with the first `shots` of dev.
std::string mmlu_prompt(const MmluSubject&, const MmluQuestion&, int64_t shots);

struct MmluItem {
  std::string subject;
  int64_t index = 0;
  std::string prompt_sha256;
  int64_t prompt_tokens = 0, shots = 0;  // shots that fitted
  int gold = 0, prediction = 0;
  bool correct = false;
  std::array<float, 4> logits{};     // of the answer tokens
  std::array<float, 4> log_probs{};  // over the whole vocabulary
};

struct Accuracy {
  double value = 0;
  std::optional<double> standard_error;  // none when it cannot be estimated (one question)
  int64_t n = 0;
};

struct MmluReport {
  std::vector<MmluItem> items;                             // in order of subjects and files
  std::vector<std::pair<std::string, Accuracy>> subjects;  // same order as the data
  Accuracy micro;                                          // over questions (Hendrycks' "average accuracy")
  Accuracy macro;                                          // mean over subjects (qlora.py's callback)
  std::array<int32_t, 4> letter_ids{};
  std::array<std::string, 4> letter_tokens;
  int64_t truncated_prompts = 0, dropped_shots = 0, max_prompt_tokens = 0;
  bool partial = false;               // limit or a choice of subjects
  std::vector<std::string> warnings;  // chance level, letter bias
};

// The requests of all questions, with what is known of each before a model answers.
struct MmluPlan {
  std::vector<MmluItem> items;  // prediction and logits still empty
  std::vector<std::vector<int32_t>> contexts;
  std::array<int32_t, 4> letter_ids{};
  std::array<std::string, 4> letter_tokens;
  int64_t truncated_prompts = 0, dropped_shots = 0, max_prompt_tokens = 0;
};
// Throws Error(data) when a question does not fit without shots, or when the tokenizer gives no distinct
// answer tokens.
MmluPlan plan_mmlu(const MmluData&, const MmluOptions&, const Tokenizer&, int64_t context_length);

// Scores several subjects (adapters of the Lm; -1 = base) in one pooled pass; one report each, same order.
std::vector<MmluReport> run_mmlu(Lm&, const Tokenizer&, const MmluData&, const MmluOptions&,
                                 std::span<const SubjectIndex>);

}  // namespace qlora
