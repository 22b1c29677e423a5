#pragma once
// A CUDA grid on the processor: every CUDA thread is a fiber, a block runs on one thread of the pool, and
// blocks are split over the pool. What CUDA leaves open is taken at its worst, so that a wrong kernel fails
// here:
//   order    threads and blocks run forward, in reverse or at random, each up to its next barrier;
//   memory   shared memory begins as NaN bits, and cp.async breaks its target until it is waited for;
//   misuse   is a Fault with file and line: barriers that not all threads reach, warp operations that not the
//            whole warp reaches, deadlock, limits of a launch, unaligned ldmatrix and cp.async, a thread that
//            ends with copies in flight.
// Not seen: registers, occupancy, timing, weak ordering between blocks, bank conflicts of plain accesses.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>
#include <vector>

#include "core/base/error.h"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x, y, z;
};

namespace qlora::emulated {

inline constexpr int kWarp = 32;
// Limits of what consumer cards of compute capability 8.6 and up have.
inline constexpr unsigned kMaxThreads = 1024;
inline constexpr size_t kMaxShared = size_t{99} << 10;

// A kernel broke a rule of CUDA.
class Fault : public Error {
 public:
  explicit Fault(const std::string& what) : Error(ErrorKind::failure, "CUDA emulation: " + what) {}
};

enum class Order : uint8_t { forward, reverse, random };
struct Schedule {
  Order order = Order::forward;
  uint64_t seed = 1;
};
// What later launches use; at first QLORA_CUDA_SCHEDULE = forward | reverse | random:SEED.
Schedule schedule();
void set_schedule(Schedule);

// What has run since the last reset.
struct Counters {
  uint64_t launches = 0, blocks = 0;
  uint64_t bank_phases = 0;     // of ldmatrix: eight rows of 16 bytes each
  uint64_t bank_conflicts = 0;  // further turns that they needed
};
Counters counters();
void reset_counters();

// Bytes of the device that are allocated now, as they were asked for.
size_t device_bytes();

// A copy of cp.async on its way.
struct Copy {
  void* to = nullptr;
  const void* from = nullptr;
  int bytes = 0;  // of 16; the rest of the target becomes zero
  int group = 0;
};

// What a kernel can see of itself.
struct Thread {
  uint3 thread = {}, block = {};
  dim3 block_size = {}, grid_size = {};
  int index = 0, lane = 0, warp = 0;
  std::vector<Copy> copies = {};
  int groups = 0;  // of copies, committed
};

namespace detail {
extern constinit thread_local Thread* running;
}
inline Thread& self() {
  return *detail::running;
}

// The shared memory of the running block, 1,024-byte aligned, and its size.
std::byte* shared_memory();
size_t shared_bytes();

using Place = std::source_location;

// Waits for all threads of the block.
void block_barrier(Place);

// The last of the 32 lanes to arrive calls body(arguments) with every lane's argument, in the order of lanes;
// then all go on.
using WarpBody = void (*)(void* const* arguments);
void warp_operation(const char* name, void* argument, WarpBody, Place);

// Throws a Fault that says where the running thread stands.
[[noreturn]] void fault(const std::string& what, Place);

void count_banks(uint64_t phases, uint64_t conflicts);

// Runs the body once for every thread of the grid. Throws a Fault.
void run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()>& body);

}  // namespace qlora::emulated
