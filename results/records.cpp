#include "results/records.h"

#include <chrono>
#include <ctime>

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {

namespace {
const std::vector<std::string> kStates = {"pending", "running", "finished", "failed", "killed", "pruned"};
}

const char* name_of(RunState state) {
  return kStates[static_cast<size_t>(state)].c_str();
}

RunState run_state_from(const std::string& name) {
  for (size_t i = 0; i < kStates.size(); ++i)
    if (kStates[i] == name) return static_cast<RunState>(i);
  fail(ErrorKind::data, "{}", unknown_name("run state", name, kStates));
}

std::string now_utc() {
  using namespace std::chrono;
  auto now = system_clock::now();
  std::time_t seconds = system_clock::to_time_t(now);
  auto milliseconds = duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, milliseconds);
}

}  // namespace qlora
