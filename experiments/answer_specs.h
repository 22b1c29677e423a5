#pragma once
// What a sweep file asks for beside scores: free answers of its runs, and judges who compare them.
//
// generate:
//   - {questions: FILE or list, template: auto, system: "", greedy: true, temperature: 0.7, top_p: 0.9,
//      top_k: 0, repetition_penalty: 1, max_new_tokens: 1024, stop: [..], seed: 0, limit: 20, base: true}
// judge:
//   - {judge: base | model:DIR | NAME, name: N, questions: [SET, ..], prompts: FILE, points: false,
//      parser: P, temperature: 0, max_tokens: 1024, chat_template: auto,                 (a local model)
//      concurrency: 4, per_minute: 0, attempts: 6, timeout: 120, longest_wait: 600, budget_tokens: 0,
//      budget_money: 0, price_prompt: 0, price_answer: 0}                        (an endpoint: NAME there)
// tournaments:                                                     experiments/evals.h
//   - {name: N, judge: N of a judge above, ...}
//
// Every two systems that answered a set of questions are compared, in both orders. `base`: the model that
// the runs stand on, unquantized. A set is named by its file ("vicuna" of vicuna_questions.jsonl).

#include <optional>
#include <string>
#include <vector>

#include "eval/generation/questions.h"
#include "experiments/generation.h"
#include "experiments/judge_study.h"
#include "experiments/yaml.h"

namespace qlora {

struct GenerateSpec {
  Where where;
  std::string questions;        // a file
  GenerationSettings settings;  // its template may be `auto`, its decode_numerics and drafts are the runs'
  int64_t limit = 0;            // the first questions; 0: all
  bool base = false;            // the untuned base answers too
};
// One for each file. Throws Error(usage) with the place.
std::vector<GenerateSpec> read_generates(const YamlNode& list);
// Its questions. Throws what read_questions() throws.
QuestionFile questions_of(const GenerateSpec&);

struct JudgeSpec {
  Where where;
  JudgeSetup setup;                    // who judges, and how; `judge` may be "base"
  std::vector<std::string> questions;  // names of sets; empty: all
};
std::vector<JudgeSpec> read_judges(const YamlNode& list);

}  // namespace qlora
