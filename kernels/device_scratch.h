#pragma once
// How much memory of a device the CUDA kernels keep for themselves (kernels/cuda/device.h): copies of
// operands, decoded weights, sums that are not finished, what calls upload, slabs of paged states, cuBLAS's
// workspace where that is chosen (DeviceOptions). What grows stays, so needs of different calls join by the
// larger of each.

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "kernels/backend.h"

namespace qlora {

// The needs of all calls that were added: never less than what the kernels take, which
// device_scratch_test.cpp looks at for some of the case table, and experiments/model_plan_test.cpp for whole
// steps.
class DeviceScratchNeed {
 public:
  explicit DeviceScratchNeed(const DeviceOptions& options = {}) : options_(options) {}
  void add(const Linear&);
  void add(const LinearBackward&);
  void add(const Attention&);
  void add(const AttentionBackward&);
  void add(const RopeTable&);
  void add(const GatherRows&);
  void add(const ScatterRows&);
  void add(const CrossEntropy&);
  void add(const SumSquares&);
  void add(const AdamW&);
  void add(const AdamW8&);
  void add(const Sample&);

  size_t bytes() const;  // without slabs
  size_t slabs() const { return bytes_[kSlabs]; }
  // Of all weights that forward products of many rows read, decoded and with room for adapters.
  size_t decoded() const;

 private:
  // One for each cuda::Room, then cuBLAS's workspace, and decoded weights that stay.
  enum Buffer {
    kSum,
    kLowRank,
    kPartials,
    kKeys,
    kQueries,
    kSlabs,
    kNarrow,
    kDropped,
    kDecoded,
    kAdapter,
    kLow,
    kWorkspace,
    kKept,
    kBuffers
  };
  void need(Buffer, int64_t bytes);
  void uploads(int64_t bytes);
  void sequences(const Attention&);
  void keys(const Attention&);

  DeviceOptions options_;
  std::array<size_t, kBuffers> bytes_{};
  std::map<const void*, size_t> stacks_;  // decoded, by the first weight's data
  size_t uploads_ = 0;                    // of the call with the most
};

}  // namespace qlora
