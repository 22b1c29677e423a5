#pragma once
// What the sweep's process tells a worker to do, and the lines by which the worker answers. A job is a JSON
// file; an answer is one JSON object a line over a pipe. The worker knows no database: its parent writes what
// it sends.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/judge/judge_run.h"
#include "experiments/config.h"
#include "experiments/generation.h"
#include "experiments/judge_study.h"
#include "experiments/spec.h"
#include "results/records.h"

namespace qlora {

// One evaluation of one subject.
struct EvalJob {
  Digest key{};
  std::string task;      // mmlu | loss | a name of the registry of tasks
  int64_t step = 0;      // of the state that is scored; 0 = before training
  std::string protocol;  // canonical JSON
  std::string data;      // a tree (mmlu), file or folder
  std::string data_hash;
  MmluOptions mmlu;
  std::vector<PartialAnswer> answers = {};  // that an interrupted attempt has left
  TaskOptions options = {};                 // of a task of the registry
};

// The answers of one subject to one file of questions.
struct AnswerJob {
  Digest key{};  // of the set
  GenerationSettings settings;
  std::string questions;                  // a file
  Digest content{};                       // of it
  int64_t limit = 0;                      // the first questions; 0: all
  int64_t step = 0;                       // of the state that answers
  std::string system;                     // under which name it competes
  std::vector<GenerationRow> known = {};  // that are there
};

// A judge, and all that it is asked.
struct JudgeJob {
  JudgeSetup setup;
  std::vector<JudgeAsk> asks;
  Path folder;  // of the journal
};

struct RunJob {
  std::string name;
  Digest key{};
  RunConfig config;
  ContentHashes content;  // of which the key speaks: the worker refuses files that have changed since
  Path folder;            // checkpoint-N, adapter, qlora_run.json
  bool train = false;     // else the adapter is there already
  Path adapter;           // where it is, or will be
  std::vector<EvalJob> evals;
  std::vector<AnswerJob> answers = {};
  // By step, of states whose scores are stored: for the log_history of a run that comes, or came, to them.
  std::vector<std::pair<int64_t, StepScores>> scored = {};
};

// One pack: runs that share one loaded base. Or, without runs, a judge.
struct Job {
  Path model;
  std::string base_name;  // shown to users
  Digest base_key{};
  std::string backend = "auto";
  DeviceOptions device = {};  // of that backend, as planned
  int threads = 0;            // 0: the default
  size_t room = 0;            // bytes planned for activations, to be had in one piece; 0: not planned
  size_t lasting = 0;         // likewise for what lasts; only where untouched room costs memory
  size_t offload = 0;         // likewise of the host, for what passes there (Memory::reserve_host)
  std::vector<RunJob> runs;
  std::vector<EvalJob> base_evals;
  std::vector<AnswerJob> base_answers = {};
  std::optional<JudgeJob> judging = {};
};
std::string to_text(const Job&);
// Throws Error(data) naming what is missing.
Job job_from_text(const std::string& text, const std::string& origin);

// The answers. Each has the run's key where it concerns a run.
struct StartedMessage {  // the base is loaded; training of the run starts at this step
  Digest run{};
  int64_t step = 0;
};
struct StepMessage {
  Digest run{};
  StepRow row;
  size_t memory = 0;  // bytes in use on the device, at most so far
};
struct EndedMessage {  // status: finished | nan_loss | no_labels
  Digest run{};
  std::string status;
  int64_t step = 0;
  int64_t peak_bytes = 0;  // of the process so far, or of what it has allocated on a GPU
};
struct ScoredMessage {
  EvalRow row;
};
struct AnswersMessage {  // of an evaluation that is not whole yet
  Digest evaluation{};
  std::vector<PartialAnswer> answers;
};
struct GeneratedMessage {  // one answer
  Digest set{};
  GenerationRow row;
};
struct PhaseMessage {  // what the worker is doing: "loading", "scoring mmlu"; done of all where known
  std::string what;
  int64_t done = 0, all = 0;
};
struct NoteMessage {
  std::string text;
};
struct FailedMessage {  // the worker ends after it
  int kind = 1;         // ErrorKind
  std::string text;
};

std::string to_text(const StartedMessage&);
std::string to_text(const StepMessage&);
std::string to_text(const EndedMessage&);
std::string to_text(const ScoredMessage&);
std::string to_text(const AnswersMessage&);
std::string to_text(const GeneratedMessage&);
std::string to_text(const PhaseMessage&);
std::string to_text(const NoteMessage&);
std::string to_text(const FailedMessage&);

// Who listens to a worker.
class MessageHandler {
 public:
  virtual ~MessageHandler() = default;
  virtual void on(const StartedMessage&) = 0;
  virtual void on(const StepMessage&) = 0;
  virtual void on(const EndedMessage&) = 0;
  virtual void on(const ScoredMessage&) = 0;
  virtual void on(const AnswersMessage&) = 0;
  virtual void on(const GeneratedMessage&) = 0;
  virtual void on(const PhaseMessage&) = 0;
  virtual void on(const NoteMessage&) = 0;
  virtual void on(const FailedMessage&) = 0;
};
// The line of a ScoredMessage. Throws Error(data) naming `origin` when it is none.
ScoredMessage scored_from_text(const std::string& line, const std::string& origin);
// Takes one line apart and hands it on. Throws Error(failure) for a line that is no answer.
void dispatch(const std::string& line, MessageHandler&);

}  // namespace qlora
