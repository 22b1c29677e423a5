#pragma once
// Copies that run beside the kernels, between the device and memory of allocate_host(): a stream of their
// own, which waits for the calls before a copy and for which the calls after it wait where they are told to.

#include "kernels/backend.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {

struct Copies {
  Stream stream = {};
  Event before = {}, done = {};  // calls before the last copy; the last copy
};

void copy_beside(Device&, void* to, const void* from, size_t bytes, CopyKind);
// Calls from now on begin when all copies so far are done.
void await_copies(Device&);
// The host waits.
void finish_copies(Device&);

}  // namespace qlora::cuda
