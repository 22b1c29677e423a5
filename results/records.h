#pragma once
// Plain structs that cross the boundary of the results store. They know no SQL; the store knows nothing of
// models. Times are ISO-8601 UTC text ("2024-05-01T12:00:00.000Z", see now_utc()). Keys are SHA-256 digests,
// made by the caller: a run's key from its resolved configuration and content hashes, an evaluation's from
// its subject's key, step, protocol and data.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/hash.h"

namespace qlora {

// The time now, to the millisecond.
std::string now_utc();

// ---- sweeps, runs, attempts

// pending: declared, or saved and waiting to go on. running: a process works on it. finished: trained to the
// end (final). failed, killed: ended early, may run again. pruned: stopped early by a sweep's rule, not to be
// compared.
enum class RunState { pending, running, finished, failed, killed, pruned };
const char* name_of(RunState);
RunState run_state_from(const std::string& name);  // throws Error(data)

// One run as a sweep declares it.
struct RunRow {
  Digest key{};
  std::string name;
  // The whole resolved configuration, a flat JSON object with every key, also those left out of the identity.
  // Columns of the views are read from model_name_or_path, dataset, quant_type, lora_r, learning_rate, seed,
  // max_steps.
  std::string config_json;
};

// One optimizer step. Written under the names loss, grad_norm, learning_rate, tokens, labels, seconds; a NaN
// or infinity is kept as NULL.
struct StepRow {
  int64_t step = 0;  // from 1
  double loss = 0;
  double grad_norm = 0;
  double learning_rate = 0;
  int64_t tokens = 0;  // of this step
  int64_t labels = 0;  // tokens of this step that were learned
  double seconds = 0;  // wall time of this step, the run's share where it was packed
};

// One process's life with one run.
struct AttemptStart {
  std::string engine = "local";  // local | slurm | mpi
  int64_t pid = 0;
  int64_t start_step = 0;  // 0, or the step of the checkpoint that it goes on from
  std::string log_path;
  std::string hostname, host_json = "{}";  // what `qlora doctor` knows of the machine, a JSON object
  std::string program;                     // version, commit and build of the program
  std::optional<int64_t> estimated_bytes;  // memory planned for the process
};
struct AttemptEnd {
  std::string outcome;  // finished | failed | oom | killed | interrupted | lost | pruned
  std::optional<int64_t> exit_code, signal;
  std::string error;  // the last words of a process that failed
  std::optional<int64_t> peak_bytes;
  std::optional<double> seconds;
};
struct AttemptRow {
  Digest run{};
  int64_t attempt = 0;  // from 1
  AttemptStart start;
  std::string started_at, ended_at;  // ended_at empty: still open
  AttemptEnd end;
};

// What is known of a run, for schedulers and for `sweep status`.
struct RunInfo {
  Digest key{};
  std::string name, config_json;
  RunState state = RunState::pending;
  std::string reason;  // of failed, killed, pruned: nan_loss, no_labels, oom, crash, ...
  int64_t attempts = 0;
  int64_t last_step = 0;  // the last step written
  std::optional<double> last_loss;
  std::string created_at, finished_at;
};

// ---- evaluations

// What an evaluation scores: a run's adapter on its base, or a base as it is (quantized in one way). The base
// needs no run.
struct SubjectModel {
  Digest key{};  // the run's key, or a key made of base, quantization and compute type
  bool is_run = false;
  std::string name;   // shown to users: a run's name, or the model's
  std::string model;  // model_name_or_path
  std::string quant;  // nf4, fp4, none, ...
};

// A data set of questions, in one state of its content.
struct TaskRow {
  std::string name;             // mmlu, loss, ...
  std::string version;          // split and first digits of the data's hash, or any name of the state
  std::string kind = "choice";  // choice | generate | perplexity | classify
  Digest data{};                // content hash
};

// An answer as one of a task's filters reads it.
struct ExtractedRow {
  std::string filter, answer;
};

// One question and its answer. An item is known by (task, subject, ordinal); its gold answer must stay the
// same.
struct PredictionRow {
  std::string subject;  // high_school_physics, ...; empty when the task has none
  int64_t ordinal = 0;  // within the subject, from 0
  Digest prompt{};      // SHA-256 of the prompt's bytes
  int64_t gold = 0;     // index of the right choice
  int64_t pred = 0;
  bool correct = false;
  std::vector<float> scores;  // one a choice: logits or log-probabilities, as the protocol says
  int64_t dropped_shots = 0;  // examples left out because the prompt was too long
  // Scores that are logits: log-probability = score - log_sum_exp.
  std::optional<double> log_sum_exp = {};
  std::vector<uint8_t> greedy = {};          // one a choice: 1 where it is what the model would have written
  std::optional<std::string> text = {};      // what the model wrote, of tasks that generate
  std::vector<ExtractedRow> extracted = {};  // and what was read out of it
};

// A stored aggregate; `subject` empty = the whole task.
struct AggregateRow {
  std::string metric;  // acc, acc_macro, loss, ...
  std::string subject;
  int64_t n = 0;
  double value = 0;
  std::optional<double> standard_error;
};

// One subject model on one task by one protocol. Leaderboards read, of task `mmlu`: acc (micro average) and
// acc_macro; of tasks of kind perplexity: loss.
struct EvalRow {
  Digest key{};
  SubjectModel subject;
  int64_t step = 0;  // optimizer steps of the state that was scored; 0 for a base
  TaskRow task;
  std::string protocol_json = "{}";  // JSON object: name, shots, limit, ...
  std::string started_at;            // empty = now
  double seconds = 0;
  std::vector<AggregateRow> aggregates;
  std::vector<PredictionRow> predictions;
};

// One answer of an evaluation that is not whole yet: what was asked, by its hash, and bytes that mean
// something to whoever wrote them.
struct PartialAnswer {
  Digest request{};
  std::string answer;
};

// ---- generated answers

// One subject model's answers to one file of questions in one way. `system`: the name under which they
// compete; the store makes it another one when it is taken.
struct GenerationSetRow {
  Digest key{};  // of subject, step, questions and settings
  SubjectModel subject;
  int64_t step = 0;
  TaskRow questions;  // kind generate
  std::string system;
  std::string settings_json = "{}";  // JSON object: template, sampling, seed, decode_numerics, ...
  std::string program;               // version, commit and build of the program
};

struct GenerationRow {
  std::string question;  // its id in the file
  int64_t turn = 1;
  Digest prompt{};     // SHA-256 of the prompt's bytes
  std::string text;    // all that the model wrote
  std::string answer;  // up to the first stop
  int64_t tokens = 0;
  std::string finish;      // stop | length | no_room: the prompt left no place for an answer
  std::string created_at;  // empty = now
};

// ---- tournaments

// One judgment of one or two answers.
struct VoteRow {
  std::string judge;                       // gpt-4, human, ...
  std::string item;                        // prompt
  int turn = 1;                            // of a conversation
  std::string system_a, system_b;          // after aliases; system_b empty: one answer alone was scored
  char shown_first = 'a';                  // 'a', 'b', or '?' when unknown
  std::string rater;                       // which of several raters; empty when the judge is one
  std::string prompt;                      // the judge's prompt template
  int score = 0;                           // 1: a wins, 2: b wins, 3: tie, 4: both bad, -1: no valid verdict
  bool points = false;                     // points were asked for, not a verdict
  std::optional<double> score_a, score_b;  // points, or shares of a divided verdict
  std::string answer_a, answer_b;          // ids of the answers
  int64_t length_a = 0, length_b = 0;      // of the answers, in bytes; 0 = unknown
  std::string review, raw;                 // the judgment's own id, and the judge's words
  int64_t line = 0;                        // in the source file, from 1
  int part = 0;                            // which vote of that line
};

// A file of votes, known by its content: a file used by several tournaments is stored once.
struct VoteFile {
  std::string path;
  Digest content{};
  std::vector<VoteRow> votes;
};

// What a parser made of the words of a stored vote.
struct VoteParse {
  int64_t vote_id = 0;
  int score = -1;
  std::optional<double> score_a, score_b;
};

struct RatingRow {
  std::string system;
  double rating = 0;
  double order_sd = 0;                 // standard deviation over random orders: noise of the method
  std::optional<double> ci_lo, ci_hi;  // of the data, by ci_method; none for counts without prompts
  std::string ci_method;               // "prompt-bootstrap 1000, 95%"; empty = no interval
  int64_t games = 0, wins = 0, losses = 0, ties = 0;
};

struct TournamentRow {
  Digest key{};  // of the method, its parameters, and the content of its files
  std::string name;
  std::string method = "elo";      // elo, bt, rao-kupper, davidson
  std::string params_json = "{}";  // JSON object: k, orders, votes, seed, bootstrap, systems, preset
  int64_t matches = 0;
  int64_t invalid = 0;  // votes without a valid verdict, dropped
  std::vector<RatingRow> ratings;
  std::vector<VoteFile> files;
};

}  // namespace qlora
