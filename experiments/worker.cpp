#include "experiments/worker.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <new>

#include "core/base/log.h"
#include "experiments/pack_worker.h"
#include "experiments/run_file.h"

namespace qlora {
namespace {

std::atomic<bool> stop_asked = false;
extern "C" void ask_to_stop(int) {
  stop_asked = true;
}

// A parent that is gone cannot store anything: save and stop, as if asked to.
void send_line(int fd, const std::string& line) {
  std::string text = line + '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    ssize_t n = ::write(fd, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      stop_asked = true;
      return;
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

int report(int fd, ErrorKind kind, const std::string& text) {
  send_line(fd, to_text(FailedMessage{static_cast<int>(kind), text}));
  return static_cast<int>(kind);
}

}  // namespace

std::vector<int64_t> checkpoint_steps(const Path& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    std::string name = entry.path().filename().string();
    const std::string prefix = "checkpoint-";
    if (!name.starts_with(prefix)) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    auto [stop, code] = std::from_chars(name.data() + prefix.size(), end, step);
    if (code == std::errc() && stop == end) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

int64_t latest_step(const Path& folder) {
  const std::vector<int64_t> steps = checkpoint_steps(folder);
  return steps.empty() ? 0 : steps.back();
}

Path latest_checkpoint(const Path& folder) {
  std::vector<int64_t> steps = checkpoint_steps(folder);
  return steps.empty() ? Path() : checkpoint_folder(folder, steps.back());
}

void prune_checkpoints(const Path& folder, int64_t keep) {
  std::vector<int64_t> steps = checkpoint_steps(folder);
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i) {
    std::error_code ignored;  // one checkpoint too many harms nobody
    std::filesystem::remove_all(checkpoint_folder(folder, steps[i]), ignored);
  }
}

bool do_job(const Job& job, const std::function<void(const std::string&)>& send,
            const std::function<bool()>& stop) {
  if (job.judging) return do_judging(job, send, stop);
  PackWorker worker(job, send, stop);
  return worker.score_start() && worker.train() && worker.score_end() && worker.answer_questions_of_all();
}

int worker_main(const Path& job_file, int fd) {
  std::signal(SIGTERM, ask_to_stop);
  std::signal(SIGINT, ask_to_stop);
  std::signal(SIGPIPE, SIG_IGN);
  set_log_sink([fd](LogLevel level, std::string_view text) {
    if (level == LogLevel::warning) send_line(fd, to_text(NoteMessage{std::string(text)}));
  });
  try {
    Job job = job_from_text(read_file(job_file), job_file.string());
    bool done = do_job(
        job, [fd](const std::string& line) { send_line(fd, line); }, [] { return stop_asked.load(); });
    return done ? 0 : kSavedExit;
  } catch (const Error& e) {
    return report(fd, e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return report(fd, ErrorKind::memory, "out of memory");
  } catch (const std::exception& e) {
    return report(fd, ErrorKind::failure, e.what());
  }
}

}  // namespace qlora
