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

#include "core/base/check.h"

namespace qlora {
namespace {

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
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (pipe_ >= 0) ::close(pipe_);
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
    std::string pid = fmt::format("{}\n", ::getpid());
    bool written = ::ftruncate(fd_, 0) == 0 && ::pwrite(fd_, pid.data(), pid.size(), 0) > 0;
    QLORA_CHECK(written, failure, "cannot write {}: {}", path_.string(), std::strerror(errno));
    return true;
  }
  QLORA_CHECK(errno == EWOULDBLOCK, failure, "cannot lock {}: {}", path_.string(), std::strerror(errno));
  return false;
}

pid_t FileLock::holder() const {
  char text[32] = {};
  return ::pread(fd_, text, sizeof text - 1, 0) > 0 ? static_cast<pid_t>(std::atol(text)) : 0;
}

bool is_our_program(pid_t pid) {
  if (pid <= 0) return false;
  std::error_code error;
  Path theirs = std::filesystem::read_symlink(fmt::format("/proc/{}/exe", pid), error);
  if (error) return false;
  return theirs.filename() == std::filesystem::read_symlink("/proc/self/exe", error).filename();
}

}  // namespace qlora
