#pragma once
// Inputs of blocks in memory of the host, from a block's forward pass to its backward
// (Checkpointing::offload). Each goes there while the block that reads it computes, and comes back while the
// block above it does (Backend::copy_beside). In backward two of them are on the device: the one that a block
// reads, and the next.

#include <memory>
#include <vector>

#include "core/ops/context.h"
#include "core/tensor/host_array.h"

namespace qlora {

class Offload {
 public:
  explicit Offload(Memory& memory) : memory_(&memory) {}
  ~Offload();
  Offload(const Offload&) = delete;
  Offload& operator=(const Offload&) = delete;

  // Begins to copy x to the host, above all that is there; its place. x stays as it is until settle().
  size_t put(const Tensor& x);
  // What is asked of the backend from now on finds all that was put copied: it need not be kept any longer.
  void settle();
  // Forgets what was put at this place and above it.
  void drop(size_t place);
  // The tensor that was put there; what lies below it begins to come. Drops as drop() does. REQUIRES:
  // settled.
  Tensor take(size_t place);

 private:
  struct Away {
    HostArray bytes;
    Shape shape;
    DType type;
  };
  void begin_to_load(size_t place);

  Memory* memory_;
  std::vector<Away> away_ = {};
  Tensor coming_ = {};  // to the device, from the last place; empty: nothing is on its way
};

// Null where nothing goes to the host: nothing is recorded, not asked for, or one computes there.
std::shared_ptr<Offload> make_offload(const Context&);

}  // namespace qlora
