#pragma once
// One pack: starts its worker, writes what it sends into the store, and settles how it ended.

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "experiments/child_process.h"
#include "experiments/job.h"
#include "experiments/terminal.h"
#include "results/store.h"

namespace qlora {

// Counts of SIGINT, SIGTERM and SIGHUP since `catch_stop_signals`; the last one's number.
void catch_stop_signals();
int stop_signals();
int last_stop_signal();
// While one lives, a stop signal ends the process at once: for long work that has nothing to save.
class StopEndsAtOnce {
 public:
  StopEndsAtOnce();
  ~StopEndsAtOnce();
  StopEndsAtOnce(const StopEndsAtOnce&) = delete;
  StopEndsAtOnce& operator=(const StopEndsAtOnce&) = delete;
};

enum class PackEnd { done, stopped, failed };

class PackRunner : private MessageHandler {
 public:
  struct Options {
    size_t memory = 0;   // planned, stored with the attempts
    size_t context = 0;  // of it, what a GPU's driver takes: no part of what workers report
    bool json = false;
    Path folder;    // of the sweep: job file and log
    int lock = -1;  // file descriptor of the sweep's lock, held by the worker too
  };
  PackRunner(Store&, Progress&, const Job&, Options);

  PackEnd run();
  // Runs and evaluations that are not there although they were asked for, with the reason; for the end of the
  // sweep.
  const std::vector<std::string>& failures() const { return failures_; }
  // What kind of error ended the worker, as ErrorKind has it; 0: none did.
  int failed_kind() const { return failed_kind_; }

 private:
  struct Attempt {
    using Clock = std::chrono::steady_clock;
    int64_t number = 0;
    Clock::time_point begin = Clock::now();
    double seconds() const { return std::chrono::duration<double>(Clock::now() - begin).count(); }
  };
  void on(const StartedMessage&) override;
  void on(const StepMessage&) override;
  void on(const EndedMessage&) override;
  void on(const ScoredMessage&) override;
  void on(const AnswersMessage&) override;
  void on(const GeneratedMessage&) override;
  void on(const PhaseMessage&) override;
  void on(const NoteMessage&) override;
  void on(const FailedMessage&) override;

  void pump(ChildProcess&);
  PackEnd settle(const ProcessEnd&);
  void end_open_attempts(const std::string& outcome, RunState, const std::string& reason, const ProcessEnd&);
  const RunJob& job_of(const Digest& run) const;
  void print_json(const std::string& text) const;

  Store& store_;
  Progress& progress_;
  const Job& job_;
  Options options_;
  pid_t pid_ = 0;
  std::map<Digest, Attempt> attempts_;  // open ones
  std::string failed_text_;
  int failed_kind_ = 0;
  int stops_sent_ = 0;
  std::vector<std::string> failures_;
};

}  // namespace qlora
