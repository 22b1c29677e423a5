#pragma once
// What code inside an instruction-set region needs from outside, as plain functions: templates of the
// standard library must not be instantiated there (the linker could hand a wide copy to everybody).

#include <cstddef>
#include <cstdint>

namespace qlora::cpu {

using TaskBody = void (*)(void* context, int64_t begin, int64_t end);

// Calls body over disjoint ranges of at most `batch` items that cover [0, n), on the pool's threads, which
// take the next range when they have finished one. REQUIRES: batch >= 1; the results do not depend on the
// cuts.
void run_tasks(int64_t n, int64_t batch, TaskBody body, void* context);

// The number of threads that run_tasks can use from here (1 inside a task).
int task_threads();

// Scratch memory of the calling thread, 64-byte aligned, uninitialised, valid until the same thread asks for
// the same slot again. Slots only grow and live as long as the thread. Throws Error(memory).
enum class Scratch : int {
  packed_x,
  packed_w,
  absmax,
  segment_scales,
  scores,
  gradients,
  // Of adapters: operands of thin products and of deltas, gradients of u and dropped elements of a call; a
  // task's sums and bits, and its panels of deltas.
  thin,
  delta,
  low_rank,
  kept,
  thin_sums,
  delta_panels,
  count
};
float* scratch(Scratch slot, int64_t floats);
// What all threads keep now.
size_t scratch_bytes();

}  // namespace qlora::cpu
