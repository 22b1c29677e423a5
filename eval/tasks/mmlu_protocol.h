#pragma once
// How MMLU is asked and scored. Published numbers of one checkpoint differ by up to 15 points by these
// choices alone, so that a protocol has a name and is stored with every score:
//   hendrycks  evaluate.py of hendrycks/test: logits of " A".." D" after the prompt; mean over questions
//   lm_eval    lm-evaluation-harness 0.4.13, group mmlu (version 2): one space in the header, questions
//   without
//              blanks at their ends, log-likelihood of " A".." D"; an over-long prompt loses its beginning
//   qlora      MMLUEvalCallback of qlora.py: a prompt has at most 2,048 tokens and always starts with BOS,
//   the
//              letter is the first token of "A" alone; mean over subjects; the loss of the right letter and
//              EOS
// Differences from the scripts, on purpose: texts stay as the file has them (pandas rewrites "None" and
// "0.50"); hendrycks measures an over-long prompt with the model's own tokenizer against its context length
// (the script: GPT-2's, 2,048), and takes the letter's token as what encode(prompt + " A") adds, right for
// every tokenizer.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"
#include "eval/tasks/mmlu_data.h"
#include "eval/tasks/task.h"

namespace qlora {

struct MmluProtocol {
  enum class Letter {
    after_prompt,  // what encode(prompt + " A") adds to encode(prompt)
    alone,         // the first token of "A"
  };
  enum class Overlong {
    drop_shots,  // the last shots go, one by one; too long without any is an error
    cut_right,   // the last shots go, then the end of the question
    cut_left,    // the beginning goes
  };
  enum class Bos { own, always };  // what the tokenizer's file adds; BOS wherever the tokenizer has one
  const char* name;
  const char* version;  // stored with every score; another prompt, score or stored row is another version
  const char* about;
  bool wide_header;  // two blanks before the subject
  bool stripped;     // questions lose the white space at their ends
  Letter letter;
  bool log_probs;  // items are scored, and stored, by log-probabilities, not by logits
  Overlong overlong;
  Bos bos;
  int64_t window;     // tokens of a prompt, at most; 0: the model's context
  bool macro;         // the published number is the mean over subjects, not over questions
  bool pooled_error;  // standard errors over several subjects are pooled within them
  bool answer_loss;   // the loss of the right letter and EOS is reported too
  bool turns;         // in a conversation examples are turns of their own, unless told otherwise
};

std::span<const MmluProtocol> mmlu_protocols();
std::vector<std::string> mmlu_protocol_names();
std::vector<ListedTask> listed_mmlu();           // task `mmlu`, once a protocol
std::vector<std::string> mmlu_bos_rules();       // values of MmluOptions::bos
std::vector<std::string> mmlu_chat_templates();  // values of MmluOptions::chat_template
// Throws Error(usage) for an unknown name, with the nearest.
const MmluProtocol& mmlu_protocol_named(std::string_view name);

// Whether examples are turns of their own.
bool asks_in_turns(const MmluOptions&);

// What the model reads for one question.
struct MmluPrompt {
  std::string text;
  bool with_special = true;      // encode adds what the tokenizer's file adds
  bool with_bos = false;         // BOS in front of that, whatever the tokenizer's file says
  std::string letter_gap = " ";  // between the text and the letter
};

// One prompt, with the first `shots` of dev. The tokenizer's chat template is used as options.chat_template
// says. As lm-eval does it: the header joins the system text; examples are turns of their own, or part of the
// one user message. A text that begins with BOS gets no second one.
MmluPrompt mmlu_prompt(const MmluOptions& options, const MmluSubject& subject, const MmluQuestion& question,
                       int64_t shots, const Tokenizer& tokenizer);

std::vector<int32_t> encode(const Tokenizer& tokenizer, const MmluPrompt& prompt, std::string_view more = "");

}  // namespace qlora
