#pragma once
// How much memory of a device the CUDA kernels keep for themselves (kernels/cuda/device.h): copies of
// operands, decoded weights, sums that are not finished, what calls upload, slabs of paged states, cuBLAS's
// workspace where that is chosen (DeviceOptions). What grows stays, so needs of different calls join by the
// larger of each.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "kernels/backend.h"

namespace qlora {

// Attention on tensor cores rounds keys and values first, once for all that read them, except where every
// sequence has so few queries that it rounds them as it reads them (token steps).
inline constexpr int64_t kFewQueries = 16;
inline bool rounds_keys_first(const Attention& a) {
  return std::any_of(a.sequences.begin(), a.sequences.end(),
                     [](const SequenceSpan& s) { return s.q_len > kFewQueries; });
}

// The needs of all calls that were added; never less than what the kernels take (device_scratch_test.cpp).
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
