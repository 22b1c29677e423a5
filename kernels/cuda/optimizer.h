#pragma once
// The optimizer's parts: a step over states on the device, and over states that pass through it.

#include <array>
#include <span>

#include "kernels/args_train.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {

// One update of `tensors`, whose states lie on the device; all else is the call's.
void adam_step(Device&, const AdamW&, std::span<const AdamTensor> tensors);

// What copies of states need beside the device's own stream: one stream each way, and for each of the two
// slabs the points that the three wait for.
struct Paging {
  Stream in = {}, out = {};
  std::array<Event, 2> loaded = {}, updated = {}, stored = {};
};

// The same for states in memory of allocate_host(). Returns before the states are back: synchronize() waits.
void adamw_paged(Device&, const AdamW&);
void wait_for_pages(Device&);

}  // namespace qlora::cuda
