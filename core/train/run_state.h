#pragma once
// What a Run holds besides its public members.

#include <utility>
#include <vector>

#include "core/train/optimizer.h"

namespace qlora {

struct LoggedStep {
  StepRecord record;
  double epoch = 0;
};

struct Run::State {
  explicit State(Optimizer o) : optimizer(std::move(o)) {}
  Optimizer optimizer;
  // Of the effective batch so far.
  int64_t micros = 0;
  double loss_sum = 0;
  int64_t labels = 0, tokens = 0;
  // Of the whole run.
  int64_t tokens_seen = 0;
  std::vector<LoggedStep> history;
};

}  // namespace qlora
