#pragma once
// For tests only: what is warned of (log.h) during an object's lifetime.

#include <string>
#include <vector>

#include "core/base/log.h"

namespace qlora::test {

class Warnings {
 public:
  Warnings()
      : before_(set_log_sink([this](LogLevel level, std::string_view text) {
          if (level == LogLevel::warning) texts.emplace_back(text);
        })) {}
  ~Warnings() { set_log_sink(before_); }
  Warnings(const Warnings&) = delete;
  Warnings& operator=(const Warnings&) = delete;
  std::vector<std::string> texts;

 private:
  LogSink before_;
};

}  // namespace qlora::test
