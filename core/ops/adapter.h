#pragma once
// What a run trains: LoRA pairs attached from outside, by the name of a linear. Built in core/lora.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tape/tape.h"

namespace qlora {

struct Lora {
  Param a, b;         // a [rank, in], b [out, rank]
  double scale = 1;   // alpha / rank (or alpha / sqrt(rank))
  float dropout = 0;  // of the input, in training only
  // The base weight is stored [in, out], which PEFT's files say by this name. a and b are as of any linear.
  bool fan_in_fan_out = false;
  int64_t rank() const { return a.value.rows(); }
};

// Names of linears are those of the model without ".weight": "model.layers.0.self_attn.q_proj".
class Adapter {
 public:
  std::map<std::string, Lora, std::less<>> lora;
  Lora* find(std::string_view linear);  // null when the linear is no target
  std::vector<Param*> params();         // a fixed order: by linear name, a before b
  int64_t size() const;                 // number of trained elements
};

}  // namespace qlora
