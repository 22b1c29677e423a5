#pragma once
// The instructions that CUDA C++ has no word for, each beside its emulation. All exist from compute
// capability 8.0 on. The layouts of fragments are those of the PTX manual ("Matrix fragments for
// mma.m16n8k16"): with g = lane / 4 and t = lane % 4, a register of A holds row g or g + 8, columns 2t and 2t
// + 1 (or 2t + 8, 2t + 9); one of B rows 2t, 2t + 1 (or + 8) of column g; C and D rows g and g + 8, columns
// 2t and 2t + 1.

#include "kernels/cuda/gpu.h"

namespace qlora::cuda {

#if defined(__CUDACC__)

// d[16x8] += a[16x16] b[16x8], bf16 operands, f32 sums.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two numbers rounded to bf16, the first in the low half.
__device__ __forceinline__ uint32_t round_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// 2^x to about 2^-22 of itself; 0 where that is below 2^-126. 2^0 is 1, 2^-inf 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x to about 2^-23 of itself; 1 / inf is 0.
__device__ __forceinline__ float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four 8x8 matrices of 16-bit elements: lane 8i + j names row j of matrix i (16 bytes, aligned, in shared
// memory); r[i] becomes elements (lane / 4, 2 (lane % 4)) and the next of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same of their transposes.
__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// Starts copying 16 bytes to shared memory, of which the first `bytes` come from `from` and the rest are
// zero.
__device__ __forceinline__ void copy_async(void* to, const void* from, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `pending` of the groups that this thread committed are on their way.
template <int pending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#else

namespace emulation {
using emulated::fault;
using emulated::Place;

struct Mma {
  float d[4];
  uint32_t a[4], b[2];
};
struct Matrices {
  const std::byte* row;
  uint32_t r[4];
};
void multiply(void* const* lanes);
void load(void* const* lanes);
void load_transposed(void* const* lanes);
void start_copy(void* to, const void* from, int bytes, Place place);
void wait_copies(int pending);
void check_row(const void* row, Place place);
}  // namespace emulation

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     emulation::Place place = emulation::Place::current()) {
  emulation::Mma mine{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulated::warp_operation("mma.sync", &mine, emulation::multiply, place);
  std::copy(mine.d, mine.d + 4, d);
}
inline uint32_t round_pair(float low, float high) {
  return static_cast<uint32_t>(to_bf16(low).bits) | static_cast<uint32_t>(to_bf16(high).bits) << 16;
}
inline float exp2_fast(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}
inline float reciprocal_fast(float x) {
  return 1.0f / x;
}
inline void load_matrices(uint32_t (&r)[4], const void* row,
                          emulation::Place place = emulation::Place::current()) {
  emulation::check_row(row, place);
  emulation::Matrices mine{static_cast<const std::byte*>(row), {}};
  emulated::warp_operation("ldmatrix", &mine, emulation::load, place);
  std::copy(mine.r, mine.r + 4, r);
}
inline void load_transposed(uint32_t (&r)[4], const void* row,
                            emulation::Place place = emulation::Place::current()) {
  emulation::check_row(row, place);
  emulation::Matrices mine{static_cast<const std::byte*>(row), {}};
  emulated::warp_operation("ldmatrix.trans", &mine, emulation::load_transposed, place);
  std::copy(mine.r, mine.r + 4, r);
}
inline void copy_async(void* to, const void* from, int bytes = 16,
                       emulation::Place place = emulation::Place::current()) {
  emulation::start_copy(to, from, bytes, place);
}
inline void commit_copies() {
  ++emulated::self().groups;
}
template <int pending>
void wait_copies() {
  emulation::wait_copies(pending);
}

#endif

}  // namespace qlora::cuda
