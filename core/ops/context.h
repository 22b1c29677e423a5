#pragma once
// What an op needs besides its operands.

#include "core/base/dtype.h"
#include "core/ops/axis.h"
#include "core/tape/tape.h"
#include "kernels/backend.h"

namespace qlora {

class KvCache;

struct Context {
  Backend& backend;
  Memory& memory;
  const Axis* axis = nullptr;
  // Of all activations: f32, or f64 (oracle). How products read them is the weights' matter.
  DType type = DType::f32;
  Tape* tape = nullptr;                 // null: nothing is recorded
  bool training = false;                // dropout is on
  KvCache* cache = nullptr;             // keys and values of earlier rows; never together with a tape
  Numerics numerics = Numerics::exact;  // decode: token steps of generation; never together with a tape
};

}  // namespace qlora
