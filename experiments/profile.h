#pragma once
// Where the time and the bytes of a training step go, against what the machine can do: the roofline of
// Williams, Waterman & Patterson (2009). The real step runs on a backend that times every kernel; nothing is
// stored and no file is written.

#include <map>
#include <string>
#include <vector>

#include "experiments/sweep.h"
#include "kernels/cpu/peaks.h"
#include "kernels/timed.h"

namespace qlora {

struct ProfileOptions {
  std::string backend = "auto";
  int threads = 0;          // 0: the default
  std::string memory = {};  // as for place_of; decides, as in a sweep, which runs make the first pack
  int64_t steps = 3;
  bool by_shape = false;  // one row for every size of weight
};

struct Profile {
  std::string backend, quant, compute;
  int threads = 0;
  Peaks peaks;
  std::vector<std::string> runs;  // of the pack
  int64_t steps = 0, micro_steps = 0;
  int64_t tokens = 0, labels = 0;             // of all measured steps and runs
  double seconds = 0;                         // of all measured steps
  std::map<std::string, KernelTime> kernels;  // of all measured steps
  size_t memory = 0;                          // peak of what the step allocated, bytes
  double load = 0;                            // of the machine, over the last minute
};

// Trains the first pack of the sweep, in memory that has been written to as far as is planned: two optimizer
// steps to warm up, then `steps` (of the run with the most micro-batches a step). Throws
// Error(usage | data | memory) as a sweep would.
Profile profile_sweep(const Sweep&, const ProfileOptions&);

// One row a kernel, the longest first: milliseconds and work per step, rates, fractions of the peaks, and how
// near the kernel is to its roof: the time that its flops or its bytes need at the peaks, whichever is
// longer, over the time that it took. Above 1: the operands came from a cache.
std::string profile_text(const Profile&);
std::string profile_json(const Profile&);

// "230 GFLOP/s bf16, 1900 GFLOP/s bf16_amx", or that there are none.
std::string bf16_peaks_text(const Peaks&);

// The machine's load average over the last minute; negative when unknown.
double load_average();

}  // namespace qlora
