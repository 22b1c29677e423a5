#pragma once
// What files in lm-evaluation-harness' layout say of a command's model.

#include "eval/tasks/harness_files.h"
#include "experiments/cli/loaded_model.h"

namespace qlora {

// `started`: when, ISO 8601; `seconds`: how long it took. What belongs to a task (limit, templates) is the
// caller's.
struct HarnessSubject {
  std::string model, adapter;  // paths; no adapter: the base
  const RunConfig* config = nullptr;
  std::string device;
  int64_t max_length = 0;
};
HarnessInfo harness_info(const HarnessSubject&, const std::string& started, double seconds);

}  // namespace qlora
