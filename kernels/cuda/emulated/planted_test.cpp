// Bugs planted in small kernels: each must be caught by a fault, or by a wrong result under one of the
// schedules. What only the sanitizers see (a vector at an unaligned address, a read beside a buffer whose
// value does not matter) is left to builds with them.

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/emulated/schedules.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/runtime.h"

using namespace qlora;
using namespace qlora::cuda;

namespace {

enum class Bug {
  none,
  no_barrier_after_table,     // readers of a table that other threads write
  no_barrier_before_rewrite,  // a tile is written again while others read it
  no_barrier_after_write,     // a tile is read while others write it
  waits_for_too_few,          // wait_group counts one group too many as done
  no_commit,                  // copies that no group holds
  never_waits,                // a thread ends with copies in flight
  reads_past_the_end,
  writes_past_the_end,
  shuffle_under_condition,
  shuffle_after_return,
  barriers_in_two_branches,
  barrier_under_condition,
  barrier_after_return,
  reads_fresh_shared,
  too_little_shared,
  no_swizzle,
};

constexpr int kThreads = 64, kTiles = 3;
// One more than is read or written, so that the buffers do not end at a page, where an access beside them
// would end the program.
constexpr int kInputs = kTiles * kThreads + 1, kOutputs = kThreads + 1;

struct Shared {
  float table[16];
  float4 tile[2][kThreads];
  float sums[kThreads];
};

// out[t] = sum over tiles of table[in[tile][63 - t].x mod 16] * in[tile][63 - t].y, tiles by cp.async.
template <Bug bug>
void table_sums(const float4* in, float* out) {
  auto& s = shared_as<Shared>();
  const int t = static_cast<int>(threadIdx.x);
  if (bug != Bug::reads_fresh_shared && t < 16) s.table[t] = 1.0f + static_cast<float>(t);
  if constexpr (bug != Bug::no_barrier_after_table) __syncthreads();
  auto start = [&](int tile) {
    if (tile < kTiles) copy_async(&s.tile[tile % 2][t], in + tile * kThreads + t);
    if constexpr (bug != Bug::no_commit) commit_copies();
  };
  float sum = s.table[t % 16];
  start(0);
  for (int tile = 0; tile < kTiles; ++tile) {
    start(tile + 1);
    if constexpr (bug == Bug::waits_for_too_few) {
      wait_copies<2>();
    } else if constexpr (bug != Bug::never_waits) {
      wait_copies<1>();
    }
    if constexpr (bug != Bug::no_barrier_after_write) __syncthreads();
    const float4 v = s.tile[tile % 2][kThreads - 1 - t];
    sum += s.table[static_cast<int>(v.x) % 16] * v.y;
    if constexpr (bug != Bug::no_barrier_before_rewrite) __syncthreads();
  }
  out[t] = sum;
}

// Turns a column of warps about: out[t] = sum over the block of (value of t), with everything that may part
// threads.
template <Bug bug>
void meetings(const float4* in, float* out) {
  auto& s = shared_as<Shared>();
  const int t = static_cast<int>(threadIdx.x);
  if constexpr (bug == Bug::too_little_shared) {
    struct Large {
      float value[16384];
    };
    shared_as<Large>().value[t] = 0;
  }
  float value = in[t].y;
  if constexpr (bug == Bug::reads_past_the_end) value = in[t == 5 ? kInputs : t].y;
  if constexpr (bug == Bug::shuffle_after_return) {
    if (t % 32 > 29) return;
  }
  if constexpr (bug == Bug::shuffle_under_condition) {
    if (t % 2 == 0) value = warp_sum(value);
  } else {
    value = warp_sum(value);
  }
  s.sums[t] = value;
  if constexpr (bug == Bug::barriers_in_two_branches) {
    if (t < 32) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if constexpr (bug == Bug::barrier_under_condition) {
    if (t != 7) __syncthreads();
  } else if constexpr (bug == Bug::barrier_after_return) {
    if (t == 40) return;
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[t] = s.sums[t % 32] + s.sums[32 + t % 32];
  if constexpr (bug == Bug::writes_past_the_end) {
    if (t == 0) out[kOutputs] = 1;
  }
}

using Kernel = void (*)(const float4*, float*);

// The results, or a message of the fault.
struct Outcome {
  std::vector<float> values = std::vector<float>(kThreads);
  std::string fault;
  bool operator==(const Outcome&) const = default;
};

Outcome run(Kernel kernel) {
  Outcome outcome;
  Stream stream;
  std::vector<float4> in(kInputs);
  for (size_t i = 0; i < in.size(); ++i)
    in[i] = make_float4(static_cast<float>(i * 7 % 31), static_cast<float>(i % 5) + 0.5f, 0, 0);
  auto* device_in = static_cast<float4*>(allocate_device(in.size() * sizeof(float4)));
  auto* device_out = static_cast<float*>(allocate_device(kOutputs * sizeof(float)));
  try {
    stream.copy_in(device_in, in.data(), in.size() * sizeof(float4));
    stream.launch(kernel, dim3(1), dim3(kThreads), sizeof(Shared), device_in, device_out);
    stream.copy_out(outcome.values.data(), device_out, kThreads * sizeof(float));
    release_device(device_in);
    release_device(device_out);
    stream.wait();
  } catch (const Error& e) {
    outcome.fault = e.what();
  }
  return outcome;
}

struct Planted {
  const char* name;
  Kernel good, bad;
  const char* fault;  // what the message says; empty: a wrong result is enough
};

#define SUMS(bug, fault)                                         \
  Planted {                                                      \
#bug, table_sums < Bug::none>, table_sums < Bug::bug>, fault \
  }
#define MEETS(bug, fault)                                    \
  Planted {                                                  \
#bug, meetings < Bug::none>, meetings < Bug::bug>, fault \
  }

const Planted kPlanted[] = {
    SUMS(no_barrier_after_table, ""),
    SUMS(no_barrier_before_rewrite, ""),
    SUMS(no_barrier_after_write, ""),
    SUMS(waits_for_too_few, ""),
    SUMS(no_commit, "cp.async in flight"),
    SUMS(never_waits, "cp.async in flight"),
    SUMS(reads_fresh_shared, ""),
    MEETS(reads_past_the_end, ""),
    MEETS(writes_past_the_end, "beside an allocation"),
    MEETS(shuffle_under_condition, "warp"),
    MEETS(shuffle_after_return, "a lane"),
    MEETS(barriers_in_two_branches, "different barriers"),
    MEETS(barrier_under_condition, "ends while others wait"),
    MEETS(barrier_after_return, "end"),
    MEETS(too_little_shared, "bytes of shared memory"),
};

}  // namespace

TEST_CASE("CUDA emulation: every planted bug is caught") {
  for (const Planted& planted : kPlanted) {
    INFO(planted.name);
    const Outcome right = run(planted.good);
    CHECK(right.fault == "");
    bool caught = false;
    for (const emulated::Schedule& s : emulated::test::kSchedules) {
      emulated::test::Scheduled scheduled(s);
      CHECK(run(planted.good) == right);
      const Outcome wrong = run(planted.bad);
      if (*planted.fault != '\0') {
        CHECK_THAT(wrong.fault, Catch::Contains(planted.fault));
        caught = true;
      } else {
        caught = caught || !(wrong == right);
      }
    }
    CHECK(caught);
  }
}

namespace {

// Reads 8 rows of 128 bytes, a piece each: swizzled they fall into eight different groups of banks.
template <Bug bug>
void read_rows(const float4*, float* out) {
  struct Rows {
    uint4 piece[8 * 8];
  };
  auto& s = shared_as<Rows>();
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane % 8, column = lane / 8;
  for (int i = lane; i < 64; i += 32) s.piece[i] = make_uint4(0, 0, 0, 0);
  __syncthreads();
  uint32_t r[4];
  load_matrices(r, &s.piece[row * 8 + (bug == Bug::no_swizzle ? column : column ^ row)]);
  out[threadIdx.x] = static_cast<float>(r[0] + r[1] + r[2] + r[3]);
}

}  // namespace

TEST_CASE("CUDA emulation: bank conflicts of ldmatrix are counted") {
  emulated::reset_counters();
  CHECK(run(read_rows<Bug::none>).fault == "");
  CHECK(emulated::counters().bank_phases == 2 * 4);
  CHECK(emulated::counters().bank_conflicts == 0);
  CHECK(run(read_rows<Bug::no_swizzle>).fault == "");
  CHECK(emulated::counters().bank_conflicts == 2 * 4 * 7);
}
