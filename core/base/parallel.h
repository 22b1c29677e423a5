#pragma once
// One pool of threads for the whole process. Work is split over *outputs* only, so that results never
// depend on the number of threads.

#include <cstdint>
#include <functional>

namespace qlora {

// The number of threads that parallel_for uses. At first the default: QLORA_THREADS; else OMP_NUM_THREADS,
// else SLURM_CPUS_PER_TASK, but no more than allowed_cores(); else allowed_cores().
int thread_count();
int default_thread_count();
// Cores that affinity and the quotas of control groups leave to this process.
int allowed_cores();

// Changes it. REQUIRES: n >= 1, and no parallel_for is running.
void set_thread_count(int n);

// Calls body(begin, end) over disjoint ranges that cover [0, n), each at least `grain` long where n allows,
// on the pool's threads and the caller's; returns when all have ended. The first exception is rethrown to the
// caller. A call from inside a body runs in place, on one thread.
// REQUIRES: grain >= 1; body does not depend on where ranges are cut.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

}  // namespace qlora
