#pragma once
// A program of ours in a process of its own, with a pipe back to us.

#include <sys/types.h>

#include <string>
#include <vector>

#include "core/base/file.h"

namespace qlora {

// How a process ended.
struct ProcessEnd {
  int exit_code = 0;  // when it exited
  int signal = 0;     // when a signal ended it; else 0
  int64_t peak_bytes = 0;
};

// Starts /proc/self/exe with arguments. The child leads a process group of its own (Ctrl-C at a terminal
// reaches only us, who decide), gets SIGTERM when we die, writes the pipe through the file descriptor kPipe,
// and its stdout and stderr go to the end of `log`. Not for a process with several threads that start
// children at once.
class ChildProcess {
 public:
  static constexpr int kPipe = 3;
  // `inherit`: file descriptors that stay open in the child (locks). Throws Error(failure).
  ChildProcess(const std::vector<std::string>& arguments, const Path& log,
               const std::vector<int>& inherit = {});
  ~ChildProcess();  // asks it to end if it still runs; kills it when that takes too long
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  int pipe() const { return pipe_; }
  // Appends what has arrived to `buffer`, without waiting; false once the child has closed its end.
  bool read_some(std::string& buffer);
  void send(int signal);  // to the child's whole group
  ProcessEnd wait();      // until it has ended

 private:
  pid_t pid_ = -1;
  int pipe_ = -1;
};

// An exclusive lock on a file, held as long as any process has it open. Freed by the system when they die.
class FileLock {
 public:
  explicit FileLock(const Path&);  // creates the file; does not wait
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  // On success the file says who holds it. holder() reads that, also when it is locked: the process that took
  // the lock, or 0 once that has ended (a child of it may still hold the lock).
  bool try_lock();
  pid_t holder() const;
  int descriptor() const { return fd_; }

 private:
  Path path_;
  int fd_ = -1;
};

// True while another process of this program with this id lives on this machine that began before `time`
// (ISO-8601, UTC). A later one has only got the id of one that is gone.
bool lives_since(pid_t, const std::string& time);

}  // namespace qlora
