#pragma once
// What training reports. There is no database and no terminal here.

#include <cstdint>
#include <string>

namespace qlora {

struct StepRecord {
  int64_t step = 0;      // from 1
  double loss = 0;       // mean over the label tokens of the effective batch
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0, labels = 0;
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_step(const std::string& run, const StepRecord&) = 0;
};

}  // namespace qlora
