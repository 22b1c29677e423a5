#pragma once
// The answers and judgments that a sweep asks for, and what of them is there.

#include <string>
#include <vector>

#include "eval/judge/judge_run.h"
#include "eval/judge/known_systems.h"
#include "experiments/generation.h"
#include "experiments/job.h"
#include "experiments/plan.h"
#include "experiments/sweep.h"

namespace qlora {

class Store;

// One file of questions asked in one way.
struct QuestionSet {
  const GenerateSpec* spec = nullptr;
  QuestionFile file;
  int64_t turns = 0;  // of all questions: answers of one subject
};

// The answers of one subject to one set.
struct AnswerNeed {
  size_t run = 0;  // index into the sweep's runs; of a base: the first run that stands on it
  bool of_base = false;
  const QuestionSet* set = nullptr;
  GenerationSettings settings;  // resolved
  GenerationSetRow row;         // of the store
  int64_t known = 0;            // answers that the store has
  bool never = false;           // of a run that failed and is not tried again
  bool done() const { return known == set->turns; }
};

// One judge over the answers to one set: every two systems, both orders.
struct StudyNeed {
  JudgeSetup setup;  // with the base's folder in place of `base`
  const QuestionSet* set = nullptr;
  Path folder;                   // of the journal
  size_t memory = 0;             // of a local judge
  size_t room = 0, lasting = 0;  // of it
  int64_t over = 0;              // JudgeNeed::over
  int64_t all = 0, missing = 0;
};

struct AnswerPlan {
  std::vector<QuestionSet> sets;
  std::vector<AnswerNeed> answers;  // they and the studies point into `sets`
  std::vector<StudyNeed> studies;
  int64_t to_answer() const;  // answers that are missing
  int64_t to_judge() const;   // questions to judges that are missing
};

// Checks all that can be known before there are answers: files, templates, names, the judges' models and the
// room in their contexts; notes how large the runs' passes are. Throws Error of the kind that the first
// broken thing deserves.
AnswerPlan plan_answers(Planner&, const Sweep&, std::vector<PlannedRun>&);
// Asks the store (null: there is none) and the journals what is there by now. Writes nothing.
void mark_answers(AnswerPlan&, const Store*);
// Throws Error(memory) for a judge that still has something to do and needs more than `budget` bytes.
void check_judges(const AnswerPlan&, size_t budget);
// The systems that a judge will compare, each with the place of the `generate` that asks it.
KnownSystems judged_systems(const AnswerPlan&, const std::string& judge);
// For --dry-run: one line a set and a judge.
std::vector<std::string> describe_answers(const AnswerPlan&);

// What a worker needs; makes the set known to the store.
AnswerJob answer_job(Store&, const AnswerNeed&);
// What the store has of the answers. `system` is empty where it has none.
AnswerSet stored_answers(const Store&, const AnswerNeed&);
// What to ask a judge about all subjects whose answers are whole.
std::vector<JudgeAsk> asks_of(const AnswerPlan&, const StudyNeed&, const Store&);

}  // namespace qlora
