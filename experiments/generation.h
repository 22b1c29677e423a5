#pragma once
// Free answers to a file of questions, by a base and any number of its adapters together: which answers are
// there, which are missing, and the files made of them.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/models/sampling.h"
#include "core/ops/context.h"
#include "core/text/chat_template.h"
#include "eval/generation/questions.h"
#include "results/store.h"

namespace qlora {

class Model;

// All that decides an answer besides the model and the question, and how it is made.
struct GenerationSettings {
  std::string chat_template = {};                          // by name, not "auto"
  std::string system = {};                                 // a system message; empty: the template's own
  Sampling sampling = {.temperature = 0.7, .top_p = 0.9};  // its key is made of `seed` and the question
  int64_t max_new_tokens = 1024;
  std::vector<std::string> stops = {};  // besides the template's
  int64_t seed = 0;
  std::string decode_numerics = "fast";  // fast | exact
  int64_t drafts = -1;                   // GenerateOptions::drafts: decides nothing
};
// What of it decides answers, as canonical JSON: stored with them, and part of their key.
std::string settings_text(const GenerationSettings&);
// "topp0.9-temp0.7", "greedy", ...: of file names.
std::string sampling_label(const Sampling&);

// The tokens that end an answer: the template's, and those that the model's files name.
std::vector<int32_t> ends_of_answers(const ChatTemplate&, const Tokenizer&, const Model&);

struct AnsweringSubject {
  SubjectModel subject;
  int64_t step = 0;
  Adapter* adapter = nullptr;  // null: the base
};

// Answers of one question by turn.
using TurnRows = std::vector<GenerationRow>;
struct AnswerSet {
  std::string system;             // the name under which it competes
  Digest key{};                   // of the set
  std::vector<TurnRows> answers;  // by question
  int64_t fresh = 0;              // made now; the others were stored
};

// Where answers are kept, so that the next call goes on at the first that is missing.
class AnswerKeeper {
 public:
  virtual ~AnswerKeeper() = default;
  // The answers of a set so far; `system` becomes the name under which it competes.
  virtual std::vector<GenerationRow> begin(GenerationSetRow&) = 0;
  virtual void keep(const Digest& set, const GenerationRow&) = 0;
};
// In the results store, which must outlive it.
class StoreKeeper final : public AnswerKeeper {
 public:
  explicit StoreKeeper(Store& store) : store_(store) {}
  std::vector<GenerationRow> begin(GenerationSetRow&) override;
  void keep(const Digest& set, const GenerationRow&) override;

 private:
  Store& store_;
};

struct AnswerOptions {
  const Model& model;
  Memory& memory;
  DType type;
  const Tokenizer& tokenizer;
  AnswerKeeper* keeper = nullptr;  // null: nothing is kept, nothing is resumed
  int64_t batch = 16;              // answers at a time; no answer depends on it
  std::string program = {};        // what is stored as the maker
  // Called after each answer. May be empty.
  std::function<void(int64_t done, int64_t all)> progress = {};
  // True: stop; what is there stays. Asked at every token. May be empty.
  std::function<bool()> stop = {};
};

// Thrown when AnswerOptions::stop says so.
struct GenerationStopped {};

// The set that a subject's answers make: its key is that of an evaluation.
GenerationSetRow generation_set(const SubjectModel&, int64_t step, const QuestionFile&,
                                const GenerationSettings&, const std::string& program);
// Stored answers by question of the file, in the order of their turns; those to other questions are left out.
std::vector<TurnRows> answers_by_question(const QuestionFile&, std::vector<GenerationRow>,
                                          const std::string& system);

// All answers, subject by subject. Each is kept as soon as it is there, so that the next call goes on at
// the first that is missing. An answer is a function of subject, question, settings and seed alone: not of
// what else is asked, of the order, or of the batch. A question's later turns see the answers to the earlier
// ones.
std::vector<AnswerSet> answer_questions(const AnswerOptions&, const QuestionFile&, const GenerationSettings&,
                                        std::span<const AnsweringSubject>);

// Writes OUT/<system>-<set>-generations-<sampling>.jsonl in the QLoRA release's layout (questions of one
// turn; dashes of the set's name are _ there, so that system_alias() finds the system) and
// OUT/model_answer/<system>.jsonl in FastChat's. Returns the paths.
std::vector<Path> write_answer_files(const Path& out, const QuestionFile&, const GenerationSettings&,
                                     const AnswerSet&);

}  // namespace qlora
