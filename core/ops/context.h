#pragma once
// What an op needs besides its operands.

#include <span>
#include <string_view>

#include "core/base/dtype.h"
#include "core/ops/axis.h"
#include "core/tape/tape.h"
#include "kernels/backend.h"

namespace qlora {

class KvCache;
class PrefixPass;

// What backward finds of a block's forward pass. The rest is computed again from it, by the same kernels on
// the same rows, so that no bit depends on the choice.
enum class Checkpointing : uint8_t {
  none,       // all that backward reads
  selective,  // all but what is cheap to compute again: outputs of norms and activations that linears read
  block,      // the block's input
  offload,  // the same, in memory of the host meanwhile (offload.h); `block` where that is where one computes
};
inline constexpr Checkpointing kCheckpointings[] = {Checkpointing::none, Checkpointing::selective,
                                                    Checkpointing::block,
                                                    Checkpointing::offload};  // the fastest first
inline bool blocks_run_again(Checkpointing mode) {
  return mode == Checkpointing::block || mode == Checkpointing::offload;
}
// Those that are not the same where one computes in memory of the host.
inline constexpr std::span<const Checkpointing> kHostCheckpointings = std::span(kCheckpointings).first(3);
const char* name_of(Checkpointing);
// Throws Error(usage) with the nearest name.
Checkpointing checkpointing_from_name(std::string_view);

struct Context {
  Backend& backend;
  Memory& memory;
  const Axis* axis = nullptr;
  // Of all activations: f32, or f64 (oracle). How products read them is the weights' matter.
  DType type = DType::f32;
  // Of activations that products alone read: `type`, or what a tape keeps of it (kept_rows.h).
  DType kept_type = type;
  Tape* tape = nullptr;                 // null: nothing is recorded
  bool training = false;                // dropout is on
  KvCache* cache = nullptr;             // keys and values of earlier rows; never together with a tape
  PrefixPass* prefixes = nullptr;       // shared beginnings of sequences; never with a tape or a cache
  const WantedRows* wanted = nullptr;   // of a model's output; null: all rows
  Numerics numerics = Numerics::exact;  // decode: token steps of generation; never together with a tape
  Checkpointing checkpointing = Checkpointing::none;  // of the blocks of a model
  bool recompute = false;                             // a block runs again, for its gradients alone
  bool unread = false;  // nobody reads the outputs: they get a slot, but no value, where that saves work
};

}  // namespace qlora
