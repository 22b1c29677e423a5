#include "kernels/cpu/tasks.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "core/base/error.h"
#include "core/base/parallel.h"

namespace qlora::cpu {
namespace {

thread_local bool inside_task = false;

std::atomic<size_t> all_bytes{0};

struct Buffer {
  float* data = nullptr;
  size_t bytes = 0;
  ~Buffer() { clear(); }
  void clear() {
    std::free(data);
    data = nullptr;
    all_bytes -= bytes;
    bytes = 0;
  }
};

// Marks the thread while it works on tasks, also when one throws.
struct InsideTask {
  bool before = inside_task;
  InsideTask() { inside_task = true; }
  ~InsideTask() { inside_task = before; }
};

}  // namespace

int task_threads() {
  return inside_task ? 1 : thread_count();
}

void run_tasks(int64_t n, int64_t batch, TaskBody body, void* context) {
  if (n <= 0) return;
  int64_t threads = std::min<int64_t>(task_threads(), (n + batch - 1) / batch);
  if (threads <= 1) return body(context, 0, n);
  std::atomic<int64_t> next{0};
  parallel_for(threads, 1, [&](int64_t, int64_t) {
    InsideTask mark;
    for (int64_t lo; (lo = next.fetch_add(batch)) < n;) body(context, lo, std::min(n, lo + batch));
  });
}

float* scratch(Scratch slot, int64_t floats) {
  thread_local Buffer buffers[static_cast<int>(Scratch::count)];
  Buffer& b = buffers[static_cast<int>(slot)];
  size_t bytes = (static_cast<size_t>(floats) * sizeof(float) + 4095) / 4096 * 4096;
  if (bytes > b.bytes) {
    b.clear();
    b.data = static_cast<float*>(std::aligned_alloc(4096, bytes));
    if (b.data == nullptr)
      throw Error(ErrorKind::memory,
                  "out of memory: " + std::to_string(bytes) + " bytes of scratch for a kernel");
    b.bytes = bytes;
    all_bytes += bytes;
  }
  return b.data;
}

size_t scratch_bytes() {
  return all_bytes;
}

}  // namespace qlora::cpu
