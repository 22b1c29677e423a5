// Loops over tasks, with a body of this region.

QLORA_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
QLORA_INLINE int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

template <class F>
void call_body(void* body, int64_t begin, int64_t end) {
  (*static_cast<const F*>(body))(begin, end);
}

// body(begin, end) over ranges of at most `batch` of n items, on all threads.
template <class F>
void parallel(int64_t n, int64_t batch, const F& body) {
  cpu::run_tasks(n, batch, &call_body<F>, const_cast<void*>(static_cast<const void*>(&body)));
}

// Items per task, each of which reads `weights` of a product of few rows, such that a task has some 64 Ki of
// them: less is not worth waking a thread for.
QLORA_INLINE int64_t weights_per_task(int64_t weights) {
  return larger(1, 65536 / weights);
}

// Rows per task such that one task moves about 16 Ki elements: less is not worth waking a thread for.
QLORA_INLINE int64_t rows_per_task(int64_t cols) {
  int64_t rows = 16384 / (cols > 0 ? cols : 1);
  return rows > 0 ? rows : 1;
}
