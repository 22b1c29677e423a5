#pragma once
// The results store: one SQLite file that holds everything a sweep found out. One process writes (the sweep's
// parent); any number read. A process that is killed loses at most the steps that were not flushed; what a
// function returned from is on the disk. Schema: results/schema/, explained in results/README.md.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "results/records.h"
#include "results/table.h"

namespace qlora {

// Everything known of one run, ready to print.
struct RunDetails {
  RunInfo run;
  Table attempts;     // attempt, outcome, steps, times, memory, error
  Table curve;        // step, loss, grad_norm, learning_rate, tokens, seconds
  Table evaluations;  // step, task, protocol, metric, value, standard error, n
};

struct SweepStatus {
  std::string name, created_at;
  std::vector<RunInfo> runs;  // in the order of the sweep
  int64_t count(RunState) const;
};

// Not for several threads at once. Errors of SQLite itself (full disk, a lock that is not released in 30 s, a
// damaged file) are Error(failure) or Error(data) with the file's path.
class Store {
 public:
  // Opens for writing; creates the file, or brings an older one up to date. Throws Error(data) when the file
  // is no results store, or when a newer version of the program wrote it; Error(usage) when it lies on a
  // network file system, where SQLite's write-ahead log is not safe.
  static Store open(const Path&);
  // Opens an existing store for reading. The same errors, and Error(data) when it is missing or of an older
  // version (which a writing command brings up to date).
  static Store open_read_only(const Path&);
  // The same, or nothing when the file is missing or nothing was ever written to it.
  static std::optional<Store> open_if_filled(const Path&);

  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();  // flushes steps; errors there are lost, so call flush() where they matter

  const Path& path() const;
  int version() const;  // of the schema

  // ---- sweeps and runs

  // Declares a sweep's runs; a sweep is known by its name, and declaring it again with other runs replaces
  // the list. Runs that are already known keep their state and first name, whichever sweep they came from.
  // Throws Error(usage) when two rows have the same key.
  void declare_sweep(const std::string& name, const std::string& yaml, std::span<const RunRow>);
  // Declares one run outside of any sweep.
  void declare_run(const RunRow&);

  // Throws Error(failure) for a run that is not declared. A finished run stays finished: any other state for
  // it is Error(failure). `reason` belongs to failed, killed and pruned.
  void set_run_state(const Digest& run, RunState, const std::string& reason = "");
  std::optional<RunInfo> find_run(const Digest& run) const;
  // By key prefix (hexadecimal, 4 or more digits) or by name. Throws Error(usage) when none (with the nearest
  // name) or several match (with their keys).
  RunInfo resolve_run(const std::string& name_or_prefix) const;

  // Starts an attempt: the run becomes running. Returns its number, from 1.
  int64_t begin_attempt(const Digest& run, const AttemptStart&);
  void end_attempt(const Digest& run, int64_t attempt, const AttemptEnd&);
  // Attempts that were begun and never ended: their process may have died with its parent.
  std::vector<AttemptRow> open_attempts() const;

  // ---- curves

  // Adds steps of a run. Rows are gathered and written in one transaction once 100 wait or a second has
  // passed since the last; every other writing call and flush() write them first. A step that is there
  // already (training went back to a checkpoint) is replaced.
  void write_steps(const Digest& run, std::span<const StepRow>);
  void flush();

  // ---- evaluations

  bool has_evaluation(const Digest& key) const;
  // Whole or not at all. An evaluation whose key is there already is left as it is. Throws Error(failure)
  // when the subject is a run that is not declared, Error(data) when an item's gold answer differs from the
  // stored one.
  void write_evaluation(const EvalRow&);
  // Of an evaluation that is there, by metric and subject; else none.
  std::vector<AggregateRow> aggregates(const Digest& evaluation) const;
  // Of an evaluation that is there, by subject and ordinal; else none.
  std::vector<PredictionRow> predictions(const Digest& evaluation) const;

  // Answers of an evaluation that is not whole yet. An answer that is there already is left as it is;
  // write_evaluation removes them all; answers to an evaluation that is there are not kept.
  void write_partial_answers(const Digest& evaluation, std::span<const PartialAnswer>);
  std::vector<PartialAnswer> partial_answers(const Digest& evaluation) const;

  // ---- generated answers

  // Makes a set known and returns the name of its system. Where another subject model, or another set of the
  // same questions, has the name already, the first digits of the key are added to it. Throws Error(failure)
  // when the subject is a run that is not declared.
  std::string declare_generations(const GenerationSetRow&);
  // The name of a declared set's system; empty when it is not declared.
  std::string system_of(const Digest& set) const;
  // Keeps an answer of a declared set; one that is there already is left as it is.
  void write_generation(const Digest& set, const GenerationRow&);
  // The answers of a set so far, by question and turn; none when it is not declared.
  std::vector<GenerationRow> generations(const Digest& set) const;

  // ---- tournaments

  bool has_tournament(const Digest& key) const;
  void write_tournament(const TournamentRow&);
  // Ratings of the newest tournament of that name (all tournaments when empty): tournament, rank, system,
  // rating, order_sd, ci_lo, ci_hi, games, wins, losses, ties.
  Table ratings(const std::string& tournament = "") const;
  // Ratings of the tournament with this key, in the same columns; no rows when it is not there.
  Table ratings_of(const Digest& key) const;

  // ---- votes

  // Stores files of votes, all or none. A file that is there already (by content and path) is left as it is.
  // Returns how many are new.
  int64_t write_votes(std::span<const VoteFile>);
  // The files of votes that were given here (those that a tournament alone brought along are its own), in the
  // order in which they were stored, each vote as `parser` reads it where that was tried, and otherwise as
  // its file says; empty: as the files say. Of a path that was stored with several contents, the newest; a
  // file that was named by several paths counts once.
  std::vector<VoteFile> votes(const std::string& parser = "") const;
  // Ids of the votes of votes(), file by file, in the same order.
  std::vector<std::vector<int64_t>> vote_ids() const;
  // What a parser (threeclass-2, ...) made of votes, beside what their files say; an older reading by the
  // same parser is replaced. All or none.
  void write_vote_parses(const std::string& parser, std::span<const VoteParse>);

  // ---- answers

  // One row a run and base, best first: name, state, model, dataset, quant, lora_r, learning_rate, seed,
  // steps, train_loss, loss_before, loss_after, mmlu, mmlu_se, mmlu_macro, mmlu_macro_se, mmlu_n, protocol,
  // tokens, seconds, key. With a sweep's name, only its runs and the bases they stand on. Throws Error(usage)
  // for an unknown sweep.
  Table leaderboard(const std::string& sweep = "") const;
  RunDetails show(const std::string& name_or_prefix) const;
  SweepStatus sweep_status(const std::string& name) const;
  std::vector<std::string> sweep_names() const;  // newest first

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qlora
