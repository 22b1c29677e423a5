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
  DType type =
      DType::f32;  // of all activations: f32, or f64 (oracle); how products read them is the weights' matter
  Tape* tape = nullptr;      // null: nothing is recorded
  bool training = false;     // dropout is on
  KvCache* cache = nullptr;  // keys and values of earlier rows; never together with a tape
};

}  // namespace qlora
