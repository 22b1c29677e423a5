#include "kernels/cuda/copies.h"

namespace qlora::cuda {

void copy_beside(Device& d, void* to, const void* from, size_t bytes, CopyKind kind) {
  if (bytes == 0) return;
  if (d.copies == nullptr) d.copies = std::make_shared<Copies>();
  Copies& copies = *d.copies;
  d.stream.record(copies.before);
  copies.stream.wait_for(copies.before);
  if (kind == CopyKind::host_to_device)
    copies.stream.load(to, from, bytes);
  else
    copies.stream.store(to, from, bytes);
  copies.stream.record(copies.done);
}

void await_copies(Device& d) {
  if (d.copies != nullptr) d.stream.wait_for(d.copies->done);
}

void finish_copies(Device& d) {
  if (d.copies != nullptr) d.copies->stream.wait();
}

}  // namespace qlora::cuda
