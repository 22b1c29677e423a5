#pragma once
// What the parts of Store share; for results/store*.cpp alone.

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "results/sqlite.h"
#include "results/store.h"

namespace qlora {

struct Store::Impl {
  explicit Impl(Database opened) : database(std::move(opened)) {}

  // Writes the waiting steps in a transaction of their own.
  void flush();
  // Ids of rows that must be there: Error(failure) for a run that is not declared.
  int64_t run_id(const Digest& key) const;
  // The id of a row by its name, which is made when missing.
  int64_t metric_id(const std::string& name) const;
  int64_t judge_id(const std::string& name) const;
  int64_t system_id(const std::string& name) const;
  // The id of a file of votes, which is stored with them when missing. Within the caller's transaction.
  int64_t vote_file_id(const VoteFile&) const;
  int64_t id_by_name(const char* table, const char* id, const std::string& name) const;

  Database database;
  std::vector<std::pair<int64_t, StepRow>> waiting;  // run_id, step
  std::chrono::steady_clock::time_point last_flush = std::chrono::steady_clock::now();
};

// Ids of rows that are made when missing. Error(failure) for a run that is not declared.
int64_t subject_model_id(const Database&, const SubjectModel&);
int64_t task_id(const Database&, const TaskRow&);

}  // namespace qlora
