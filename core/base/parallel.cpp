#include "core/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/cgroup.h"

namespace qlora {
namespace {

thread_local bool inside_body = false;

int positive_env(const char* name) {
  const char* text = std::getenv(name);
  int n = text == nullptr ? 0 : std::atoi(text);
  return n > 0 ? n : 0;
}

// Tells the processor that this is a loop of waiting.
void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits a little for what usually comes at once: the next job, the end of one. About 50 us, in which threads
// that have work may run; true when `ready` came true.
template <class Ready>
bool spin_until(const Ready& ready) {
  for (int i = 1; i <= 2048; ++i) {
    if (ready()) return true;
    if (i % 64 == 0)
      std::this_thread::yield();
    else
      relax();
  }
  return false;
}

// A job is a counter of chunks that everybody takes from: the caller, and the workers that come while there
// are some. The caller waits for those that came only, so a worker that the system does not let run delays
// nobody. Idle workers wait a little for the next job, then sleep. Who comes and goes is one atomic word, so
// that workers do not queue for a lock: locks are for those that sleep, and for errors.
class Pool {
 public:
  explicit Pool(int n) {
    for (int i = 1; i < n; ++i) workers_.emplace_back([this] { work(); });
  }
  ~Pool() {
    stop_ = true;
    state_ += kJob;
    wake_sleepers();
    for (std::thread& t : workers_) t.join();
  }
  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t n, int64_t chunk, const std::function<void(int64_t, int64_t)>& body) {
    std::lock_guard one_job(job_mutex_);
    body_ = &body;
    n_ = n;
    chunk_ = chunk;
    next_ = 0;
    error_ = nullptr;
    state_ += kJob | kOpen;  // it was closed, with nobody busy
    wake_sleepers();
    take_chunks();
    state_ &= ~kOpen;
    const auto all_gone = [this] { return (state_ & kBusy) == 0; };
    if (!spin_until(all_gone)) {
      std::unique_lock lock(mutex_);
      caller_sleeps_ = true;
      done_.wait(lock, all_gone);
      caller_sleeps_ = false;
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // state_: workers that take chunks, whether more may come, and the number of the job.
  static constexpr uint64_t kBusy = 0xffffff, kOpen = kBusy + 1, kJob = 2 * kOpen;

  // Whoever is about to sleep says so before it looks at state_ once more, so that one of both sees the other.
  void wake_sleepers() {
    if (sleepers_ == 0) return;
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  void take_chunks() {
    inside_body = true;
    for (int64_t lo; (lo = next_.fetch_add(chunk_)) < n_;) {
      try {
        (*body_)(lo, std::min(n_, lo + chunk_));
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        next_ = n_;
      }
    }
    inside_body = false;
  }
  // Waits for a job other than `seen`.
  void wait_for_job(uint64_t seen) {
    const auto there = [&] { return state_ / kJob != seen; };
    if (spin_until(there)) return;
    std::unique_lock lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, there);
    --sleepers_;
  }
  // Becomes one of the busy, if the job is still open; `seen`: its number.
  bool join(uint64_t& seen) {
    uint64_t state = state_;
    do {
      seen = state / kJob;
      if ((state & kOpen) == 0) return false;
    } while (!state_.compare_exchange_weak(state, state + 1));
    return true;
  }
  void leave() {
    if ((--state_ & kBusy) != 0 || !caller_sleeps_) return;
    std::lock_guard lock(mutex_);
    done_.notify_one();
  }
  void work() {
    for (uint64_t seen = 0;;) {
      wait_for_job(seen);
      if (stop_) return;
      if (!join(seen)) continue;
      take_chunks();
      leave();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex job_mutex_, mutex_;
  std::condition_variable wake_, done_;
  // The job: written while it is closed and nobody is busy.
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  int64_t n_ = 0, chunk_ = 1;
  std::exception_ptr error_;  // under mutex_ while somebody is busy
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false}, stop_{false};
};

std::unique_ptr<Pool>& pool() {
  static std::unique_ptr<Pool> p = std::make_unique<Pool>(default_thread_count());
  return p;
}

}  // namespace

int allowed_cores() {
  cpu_set_t set;
  int cores = sched_getaffinity(0, sizeof set, &set) == 0
                  ? CPU_COUNT(&set)
                  : static_cast<int>(std::thread::hardware_concurrency());
  if (int quota = cgroup_cores()) cores = std::min(cores, quota);
  return std::max(1, cores);
}

int default_thread_count() {
  if (int n = positive_env("QLORA_THREADS")) return n;
  const int cores = allowed_cores();
  for (const char* name : {"OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"})
    if (int n = positive_env(name)) return std::min(n, cores);
  return cores;
}

int thread_count() {
  return pool()->size();
}

void set_thread_count(int n) {
  if (n == pool()->size()) return;
  pool() = std::make_unique<Pool>(std::max(1, n));
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  int threads = inside_body ? 1 : pool()->size();
  if (threads == 1 || n <= grain) return body(0, n);
  // Four chunks a thread even out uneven work without much traffic on the counter.
  int64_t chunk = std::max(grain, (n + threads * 4 - 1) / (threads * 4));
  pool()->run(n, chunk, body);
}

}  // namespace qlora
