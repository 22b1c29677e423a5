#pragma once
// For tests: a folder with a tiny model, data and sweep files, and the program run in it.

#include <sys/types.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/test_data.h"

namespace qlora::test {

struct ProgramEnd {
  int code = -1;  // exit code; 128 + n when signal n ended it
  std::string out, err;
};

// The program, started in a folder with its output in files.
class Program {
 public:
  Program(const Path& folder, const std::vector<std::string>& arguments);
  pid_t pid() const { return pid_; }
  pid_t worker() const;  // the process that it has started, or 0
  ProgramEnd wait();

 private:
  Path folder_;
  pid_t pid_ = 0;
};

// True once `path` exists; false after a minute.
bool appears(const Path& path);

class Workbench {
 public:
  Workbench();
  const Path& path() const { return folder_.path(); }
  void write(const std::string& name, const std::string& text) const;
  ProgramEnd run(const std::vector<std::string>& arguments) const;

  // A sweep of two runs over two data sets; `more` are lines of its own.
  void write_sweep(const std::string& name, const std::string& more = "") const;

  // Three questions, questions.jsonl, and a judge of few words, short.jsonl.
  void write_questions(const std::string& name = "questions.jsonl") const;

 private:
  void add_answer_letters() const;  // MMLU needs answers of one token: " A" to " D"
  void write_data() const;
  void write_mmlu() const;

  TemporaryFolder folder_;
};

// The JSON lines of a long verb; the last one is its end.
std::vector<Json> records(const std::string& out);

// Rows of a store beneath the bench, as `qlora results query` gives them.
Json query(const Workbench& bench, const std::string& sql, const std::string& db = "results.db");

}  // namespace qlora::test
