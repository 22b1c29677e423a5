#pragma once
// Small helpers of the plain loops: choosing the element type, and splitting work over threads.

#include <algorithm>
#include <cstdint>

#include "core/base/dtype.h"
#include "core/base/half.h"
#include "core/base/parallel.h"
#include "kernels/args_matmul.h"

namespace qlora {

// Calls body(T{}) with T = double for f64, else float. Compute types are f32 and f64; ops have checked that.
template <class Body>
void by_compute_type(DType type, Body&& body) {
  if (type == DType::f64) {
    body(double{});
  } else {
    body(float{});
  }
}

// How many items a thread should take at least, when one costs about `work` simple operations: a thread's
// share is worth tens of microseconds, since waking the pool costs a few.
inline int64_t grain_for(int64_t work) {
  constexpr int64_t kShare = 1 << 16;
  return std::max<int64_t>(1, kShare / std::max<int64_t>(1, work));
}

// parallel_for that runs in place, without a std::function, when one share holds everything.
template <class Body>
void split(int64_t n, int64_t work, Body&& body) {
  int64_t grain = grain_for(work);
  if (n <= grain) {
    if (n > 0) body(int64_t{0}, n);
    return;
  }
  parallel_for(n, grain, body);
}

// A stored element as one of the compute type, exactly.
template <class T>
T widened(T value) {
  return value;
}
template <class T>
T widened(bf16 value) {
  return static_cast<T>(to_float(value));
}

// The element that a product reads, from the stored one.
template <class T>
T operand(T value, Operands operands) {
  return is_bf16(operands) ? static_cast<T>(to_float(to_operand(static_cast<float>(value)))) : value;
}

template <class T>
void store(T& destination, T value, Write mode = Write::overwrite) {
  destination = mode == Write::accumulate ? destination + value : value;
}
// As a stored operand (args_matmul.h), always in mode overwrite.
inline void store(bf16& destination, float value, Write = Write::overwrite) {
  destination = to_operand(value);
}

// body(T{}, S{}): of the compute type, and of what is stored, which may be operands (args_matmul.h).
template <class Body>
void by_types(DType type, DType stored, Body&& body) {
  if (stored == DType::bf16) return body(float{}, bf16{});
  by_compute_type(type, [&]<class T>(T) { body(T{}, T{}); });
}

}  // namespace qlora
