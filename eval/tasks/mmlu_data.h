#pragma once
// The questions of MMLU (Hendrycks et al. 2021), and what to ask of them.

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "core/base/file.h"

namespace qlora {

struct MmluQuestion {
  int64_t index = 0;  // row in its file (of its subject), from 0
  std::string question;
  std::array<std::string, 4> choices;
  int answer = 0;  // 0..3
  // The whole prompt, in files that hold no more (then question and choices are empty), and its shots.
  std::string rendered;
  int64_t rendered_shots = 0;
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
  std::string protocol = "hendrycks";  // mmlu_protocol.h
  std::string split = "test";          // test | val
  int64_t shots = 5;                   // 0..5
  int64_t limit = 0;  // questions per subject, the first in file order; 0 = all (else the score is partial)
  std::vector<std::string> subjects;  // empty = all that the data have
  int64_t samples = 0;     // questions in all, the first in order of subjects; 0 = all (else partial)
  int64_t max_length = 0;  // tokens of a prompt, at most; 0 = the protocol's own limit
  // What a protocol leaves to the user; the defaults change nothing.
  std::string bos = "protocol";        // protocol | own (the tokenizer's file) | always | never
  std::string chat_template = "none";  // none | own (the model's) | a name of core/text/chat_template.h
  // Each example two turns of the conversation; true needs a template, unset is as the protocol has it.
  std::optional<bool> fewshot_as_multiturn;
  std::string system_instruction;  // before everything
};

// Reads the questions, in the layout that is found at the path:
//   DIR/<split>/<subject>_<split>.csv and DIR/dev/<subject>_dev.csv   hendrycks/test: no header, six columns
//   DIR/<split>.jsonl and DIR/dev.jsonl (.json; .gz)    rows {question, subject, choices, answer}
//   FILE.json, FILE.jsonl (.gz)                         rows {subject, input, output}: QLoRA's prompts as
//   they were rendered; DIR/zero_shot_mmlu_<split>*.json and DIR/five_shot_mmlu_<split>*.json (.gz) by shots
// Rendered prompts are an error with another protocol, split (by the file's name) or number of shots.
// Dev is read with shots > 0. "validation" in a name stands for val. Rows may lie in a `doc` (lm-eval's
// samples); an answer is a number from 0 or a letter. Throws Error(data) naming file and line, or
// Error(usage) for an unknown protocol, split or subject (with the nearest).
MmluData read_mmlu(const Path& data, const MmluOptions&);

}  // namespace qlora
