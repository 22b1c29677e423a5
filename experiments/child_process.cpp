#include "experiments/child_process.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>

#include "core/base/check.h"

namespace qlora {
namespace {

constexpr int kEndSeconds = 10;     // for a child that is not needed any more to save and end
constexpr int64_t kClockSlack = 2;  // seconds between the system's clocks

// Between fork and exec only what is safe after fork: no allocation, no locks.
[[noreturn]] void become(char* const* argv, int log, int pipe_end, const std::vector<int>& inherit,
                         pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  if (pipe_end == ChildProcess::kPipe) {
    ::fcntl(pipe_end, F_SETFD, 0);
  } else {
    ::dup2(pipe_end, ChildProcess::kPipe);
  }
  for (int fd : inherit) ::fcntl(fd, F_SETFD, 0);
  ::execv("/proc/self/exe", argv);
  ::_exit(127);
}

// When a process began, in clock ticks since the machine's start; 0 when there is none, or only what is left
// of one for its parent to collect.
int64_t start_ticks(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line, state, skipped;
  std::getline(file, line);
  size_t name_end = line.rfind(')');  // the name before it may hold blanks
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  fields >> state;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  int64_t ticks = 0;
  return state != "Z" && fields >> ticks ? ticks : 0;
}

// The same as seconds since 1970.
int64_t start_seconds(pid_t pid) {
  std::ifstream file("/proc/stat");
  std::string word;
  int64_t boot = 0;
  while (file >> word)
    if (word == "btime" && file >> boot) break;
  return boot + start_ticks(pid) / ::sysconf(_SC_CLK_TCK);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& arguments, const Path& log,
                           const std::vector<int>& inherit) {
  std::vector<std::string> words = {"qlora"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  for (int fd : inherit)
    QLORA_CHECK(fd != kPipe, failure, "descriptor {} is the worker's pipe and cannot be inherited", fd);

  int log_fd = ::open(log.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
  QLORA_CHECK(log_fd >= 0, failure, "cannot write {}: {}", log.string(), std::strerror(errno));
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    int error = errno;
    ::close(log_fd);
    fail(ErrorKind::failure, "cannot make a pipe: {}", std::strerror(error));
  }
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  pid_t parent = ::getpid();
  pid_ = ::fork();
  int error = errno;
  if (pid_ == 0) become(argv.data(), log_fd, ends[1], inherit, parent);
  ::close(log_fd);
  ::close(ends[1]);
  pipe_ = ends[0];
  if (pid_ > 0) return;
  ::close(pipe_);
  fail(ErrorKind::failure, "cannot start a process: {}", std::strerror(error));
}

ChildProcess::~ChildProcess() {
  if (pipe_ >= 0) ::close(pipe_);  // first, so that the child cannot wait for us to read
  if (pid_ <= 0) return;
  send(SIGTERM);
  for (int waited = 0; waited < kEndSeconds * 10; ++waited) {
    if (::waitpid(pid_, nullptr, WNOHANG) != 0) return;
    ::usleep(100'000);
  }
  send(SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool ChildProcess::read_some(std::string& buffer) {
  char piece[1 << 16];
  for (;;) {
    ssize_t n = ::read(pipe_, piece, sizeof piece);
    if (n > 0) {
      buffer.append(piece, static_cast<size_t>(n));
    } else if (n == 0) {
      return false;
    } else if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK;
    }
  }
}

void ChildProcess::send(int signal) {
  if (pid_ <= 0) return;
  // Right after the start the group may not be there yet.
  if (::kill(-pid_, signal) != 0) ::kill(pid_, signal);
}

ProcessEnd ChildProcess::wait() {
  int status = 0;
  struct rusage usage {};
  while (::wait4(pid_, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  ProcessEnd end;
  end.peak_bytes = static_cast<int64_t>(usage.ru_maxrss) * 1024;
  if (WIFSIGNALED(status)) {
    end.signal = WTERMSIG(status);
  } else {
    end.exit_code = WEXITSTATUS(status);
  }
  return end;
}

FileLock::FileLock(const Path& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  QLORA_CHECK(fd_ >= 0, failure, "cannot write {}: {}", path.string(), std::strerror(errno));
  // The worker's pipe has a fixed number; a lock must not sit on it.
  if (fd_ == ChildProcess::kPipe) {
    int moved = ::fcntl(fd_, F_DUPFD_CLOEXEC, ChildProcess::kPipe + 1);
    ::close(fd_);
    fd_ = moved;
  }
}
FileLock::~FileLock() {
  ::close(fd_);
}

bool FileLock::try_lock() {
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) {
    std::string pid = fmt::format("{} {}\n", ::getpid(), start_ticks(::getpid()));
    bool written = ::ftruncate(fd_, 0) == 0 && ::pwrite(fd_, pid.data(), pid.size(), 0) > 0;
    QLORA_CHECK(written, failure, "cannot write {}: {}", path_.string(), std::strerror(errno));
    return true;
  }
  QLORA_CHECK(errno == EWOULDBLOCK, failure, "cannot lock {}: {}", path_.string(), std::strerror(errno));
  return false;
}

pid_t FileLock::holder() const {
  char text[64] = {};
  long pid = 0, ticks = 0;
  if (::pread(fd_, text, sizeof text - 1, 0) <= 0 || std::sscanf(text, "%ld %ld", &pid, &ticks) != 2)
    return 0;
  auto process = static_cast<pid_t>(pid);
  return process > 0 && ticks > 0 && start_ticks(process) == ticks ? process : 0;
}

bool lives_since(pid_t pid, const std::string& time) {
  if (pid <= 0 || pid == ::getpid() || start_ticks(pid) == 0) return false;
  std::error_code error;
  Path theirs = std::filesystem::read_symlink(fmt::format("/proc/{}/exe", pid), error);
  if (error || theirs.filename() != std::filesystem::read_symlink("/proc/self/exe", error).filename())
    return false;
  std::tm parts{};
  if (::strptime(time.c_str(), "%Y-%m-%dT%H:%M:%S", &parts) == nullptr) return true;
  return start_seconds(pid) <= ::timegm(&parts) + kClockSlack;
}

}  // namespace qlora
