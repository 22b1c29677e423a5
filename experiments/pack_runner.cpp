#include "experiments/pack_runner.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/build_info.h"
#include "experiments/doctor.h"
#include "experiments/eval_rows.h"
#include "experiments/plan.h"
#include "experiments/run_file.h"
#include "experiments/worker.h"

namespace qlora {
namespace {

constexpr int kPollMilliseconds = 100;

std::atomic<int> stops = 0, last_stop = 0;
std::atomic<bool> ends_at_once = false;
extern "C" void count_stop(int signal) {
  if (ends_at_once) ::_exit(128 + signal);
  last_stop = signal;
  ++stops;
}

const char* reason_of(int kind) {
  switch (static_cast<ErrorKind>(kind)) {
    case ErrorKind::memory:
      return "oom";
    case ErrorKind::data:
      return "data";
    case ErrorKind::usage:
      return "config";
    default:
      return "error";
  }
}

}  // namespace

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = count_stop;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a reader of our output who has gone away stops no training
}
int stop_signals() {
  return stops;
}
int last_stop_signal() {
  return last_stop;
}

StopEndsAtOnce::StopEndsAtOnce() {
  ends_at_once = true;
}
StopEndsAtOnce::~StopEndsAtOnce() {
  ends_at_once = false;
}

PackRunner::PackRunner(Store& store, Progress& progress, const Job& job, Options options)
    : store_(store), progress_(progress), job_(job), options_(std::move(options)) {}

PackEnd PackRunner::run() {
  Path job_file = options_.folder / "job.json", log = options_.folder / "worker.log";
  write_file(job_file, to_text(job_));
  int64_t runs = 0, steps = 0;
  for (const RunJob& run : job_.runs) {
    if (!run.train) continue;
    ++runs;
    steps += run.config.integer("max_steps");
  }
  progress_.begin(runs, steps);
  std::vector<int> inherit;
  if (options_.lock >= 0) inherit.push_back(options_.lock);
  ChildProcess worker({"worker", "--job", job_file.string(), "--fd", std::to_string(ChildProcess::kPipe)},
                      log, inherit);
  pid_ = worker.pid();
  pump(worker);
  ProcessEnd end = worker.wait();
  store_.flush();
  progress_.clear();
  PackEnd result = settle(end);
  std::error_code ignored;
  if (result == PackEnd::done) std::filesystem::remove(job_file, ignored);
  return result;
}

// Until the worker has closed its pipe: hands its lines on; passes a first stop on as a request, a second as
// a kill.
void PackRunner::pump(ChildProcess& worker) {
  std::string buffer;
  for (bool open = true; open;) {
    struct pollfd waiting {
      worker.pipe(), POLLIN, 0
    };
    ::poll(&waiting, 1, kPollMilliseconds);
    for (; stops_sent_ < std::min(stop_signals(), 2); ++stops_sent_) {
      worker.send(stops_sent_ == 0 ? SIGTERM : SIGKILL);
      progress_.note(stops_sent_ == 0 ? "stopping: every run is saved at its next step (again: stop now)"
                                      : "stopped");
    }
    open = worker.read_some(buffer);
    size_t begin = 0;
    for (size_t end; (end = buffer.find('\n', begin)) != std::string::npos; begin = end + 1)
      dispatch(buffer.substr(begin, end - begin), *this);
    buffer.erase(0, begin);
  }
}

PackEnd PackRunner::settle(const ProcessEnd& end) {
  if (end.signal == 0 && end.exit_code == 0) return failures_.empty() ? PackEnd::done : PackEnd::failed;
  if (end.signal == 0 && end.exit_code == kSavedExit) {
    end_open_attempts("interrupted", RunState::pending, "", end);
    if (stop_signals() > 0) return PackEnd::stopped;
    failures_.push_back("somebody else stopped the worker; it has saved: run the sweep again to go on");
    return PackEnd::failed;
  }
  if (stops_sent_ > 0) {
    end_open_attempts("killed", RunState::killed, "interrupted", end);
    return PackEnd::stopped;
  }
  if (end.signal != 0) {
    // Somebody else's kill, or the system's for want of memory: the runs may go on from their checkpoints.
    std::string text =
        fmt::format("the worker was ended by signal {} ({}); run it again to go on", end.signal,
                    end.signal == SIGKILL ? "killed, perhaps for want of memory" : ::strsignal(end.signal));
    bool crash = end.signal != SIGKILL && end.signal != SIGTERM;
    end_open_attempts(crash ? "failed" : "killed", crash ? RunState::failed : RunState::killed,
                      crash ? "crash" : fmt::format("signal {}", end.signal), end);
    failures_.push_back(text);
    return PackEnd::failed;
  }
  if (failed_text_.empty())
    failed_text_ = fmt::format("the worker ended with code {}; see {}", end.exit_code,
                               (options_.folder / "worker.log").string());
  if (failed_kind_ == 0) failed_kind_ = end.exit_code;
  const int kind = failed_kind_;
  if (kind == static_cast<int>(ErrorKind::memory) && options_.memory > 0)
    failed_text_ += fmt::format("; {} were planned", format_bytes(options_.memory));
  // A full disk is no fault of the run: it may go on from its checkpoint.
  bool outside = kind == static_cast<int>(ErrorKind::failure);
  end_open_attempts(kind == static_cast<int>(ErrorKind::memory) ? "oom" : "failed",
                    outside ? RunState::killed : RunState::failed, reason_of(kind), end);
  failures_.push_back(failed_text_);
  return PackEnd::failed;
}

void PackRunner::end_open_attempts(const std::string& outcome, RunState state, const std::string& reason,
                                   const ProcessEnd& end) {
  for (const auto& [run, attempt] : attempts_) {
    AttemptEnd row;
    row.seconds = attempt.seconds();
    row.outcome = outcome;
    if (end.signal != 0) row.signal = end.signal;
    if (end.signal == 0) row.exit_code = end.exit_code;
    row.error = failed_text_;
    row.peak_bytes = end.peak_bytes;
    store_.end_attempt(run, attempt.number, row);
    store_.set_run_state(run, state, reason);
  }
  attempts_.clear();
}

const RunJob& PackRunner::job_of(const Digest& run) const {
  for (const RunJob& job : job_.runs)
    if (job.key == run) return job;
  fail(ErrorKind::failure, "the worker speaks of run {}, which is not in its job", hex(run).substr(0, 12));
}

void PackRunner::print_json(const std::string& text) const {
  if (!options_.json) return;
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

void PackRunner::on(const StartedMessage& m) {
  AttemptStart start;
  start.pid = pid_;
  start.start_step = m.step;
  start.log_path = (options_.folder / "worker.log").string();
  start.hostname = machine_info().hostname;
  start.host_json = machine_json();
  start.program = program_line();
  start.estimated_bytes = static_cast<int64_t>(options_.memory);
  attempts_[m.run].number = store_.begin_attempt(m.run, start);
  progress_.started(m.step);
  const RunJob& job = job_of(m.run);
  if (m.step > 0) progress_.note(fmt::format("{}: goes on after step {}", job.name, m.step));
  print_json(Json{{"type", "started"}, {"run", job.name}, {"key", hex(m.run)}, {"step", m.step}}.dump());
}

void PackRunner::on(const StepMessage& m) {
  const RunConfig& config = job_of(m.run).config;
  int64_t max_steps = config.integer("max_steps");
  progress_.step(job_of(m.run).name, m.row.step, max_steps, m.row.loss, m.row.tokens, m.memory);
  bool logged =
      m.row.step % config.integer("logging_steps") == 0 || m.row.step == 1 || m.row.step == max_steps;
  if (logged) store_.write_steps(m.run, std::span(&m.row, 1));
}

void PackRunner::on(const EndedMessage& m) {
  bool finished = m.status == "finished";
  store_.flush();
  store_.set_run_state(m.run, finished ? RunState::finished : RunState::failed, finished ? "" : m.status);
  AttemptEnd end;
  end.outcome = finished ? "finished" : "failed";
  end.error = finished ? "" : m.status;
  // The process goes on to score and to train the others; this run's part of it ends here.
  end.seconds = attempts_.at(m.run).seconds();
  end.peak_bytes = m.peak_bytes + static_cast<int64_t>(options_.context);
  if (finished) end.exit_code = 0;
  store_.end_attempt(m.run, attempts_.at(m.run).number, end);
  attempts_.erase(m.run);
  const RunJob& job = job_of(m.run);
  if (!finished) failures_.push_back(fmt::format("run {} failed at step {}: {}", job.name, m.step, m.status));
  print_json(
      Json{{"type", "ended"}, {"run", job.name}, {"key", hex(m.run)}, {"status", m.status}, {"step", m.step}}
          .dump());
}

void PackRunner::on(const ScoredMessage& m) {
  store_.write_evaluation(m.row);
  if (m.row.subject.is_run) {
    const RunJob& job = job_of(m.row.subject.key);
    std::error_code ignored;  // a score that is stored is not stored again
    std::filesystem::remove(score_file(job.folder, m.row.key), ignored);
    if (m.row.step > 0 && m.row.step < job.config.integer("max_steps"))
      progress_.scored(job.name, m.row.task.name == "loss" ? "held-out loss" : m.row.task.name, m.row.step,
                       main_score(m.row));
  }
  Json metrics = Json::object();
  for (const AggregateRow& a : m.row.aggregates)
    if (a.subject.empty()) metrics[a.metric] = a.value;
  print_json(Json{
      {"type", "scored"},
      {"subject", m.row.subject.name},
      {"task", m.row.task.name},
      {"step", m.row.step},
      {"metrics",
       metrics}}.dump());
}

void PackRunner::on(const AnswersMessage& m) {
  store_.write_partial_answers(m.evaluation, m.answers);
}
void PackRunner::on(const GeneratedMessage& m) {
  store_.write_generation(m.set, m.row);
}
void PackRunner::on(const PhaseMessage& m) {
  progress_.phase(m.what, m.done, m.all);
}
void PackRunner::on(const NoteMessage& m) {
  progress_.note_once(m.text);
}
void PackRunner::on(const FailedMessage& m) {
  failed_text_ = m.text;
  failed_kind_ = m.kind;
}

}  // namespace qlora
