#pragma once
// What a Run holds besides its public members.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/train/optimizer.h"
#include "core/train/run.h"

namespace qlora {

struct LoggedStep {
  StepRecord record;
  double epoch = 0;
};

// By step and first name, which is their order in log_history.
using ScoreLog = std::map<std::pair<int64_t, std::string>, StepScores>;

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
  ScoreLog scores;
};

}  // namespace qlora
