#include "core/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {
namespace {

constexpr const char* kNames[] = {"constant", "constant_with_warmup", "linear", "cosine"};

double ratio(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

}  // namespace

const char* name_of(ScheduleKind kind) {
  return kNames[static_cast<size_t>(kind)];
}

ScheduleKind schedule_from_name(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<ScheduleKind>(i);
  std::vector<std::string> known(std::begin(kNames), std::end(kNames));
  fail(ErrorKind::usage, "{}", unknown_name("schedule", name, known));
}

double schedule_factor(ScheduleKind kind, int64_t done, int64_t warmup, int64_t total) {
  if (kind == ScheduleKind::constant) return 1;
  if (done < warmup) return ratio(done, warmup);
  switch (kind) {
    case ScheduleKind::linear:
      return std::max(0.0, ratio(total - done, total - warmup));
    case ScheduleKind::cosine:
      return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * ratio(done - warmup, total - warmup))));
    default:
      return 1;
  }
}

}  // namespace qlora
