#pragma once
// What makes logits of final hidden states.

#include "core/quant/frozen.h"

namespace qlora {

// logits = linear(hidden), and with a softcap c > 0 then c tanh(logits / c).
struct OutputHead {
  const FrozenLinear& linear;  // [vocab, hidden]
  double softcap = 0;
};

}  // namespace qlora
