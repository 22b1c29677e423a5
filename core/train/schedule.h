#pragma once
// Learning-rate schedules, as transformers' get_scheduler computes them.

#include <cstdint>
#include <string_view>

namespace qlora {

enum class ScheduleKind { constant, constant_with_warmup, linear, cosine };
const char* name_of(ScheduleKind);
ScheduleKind schedule_from_name(std::string_view);  // throws Error(usage) with the nearest name

// The factor for the step that is about to be done; `done` = optimizer steps already done, from 0.
// `constant` ignores warmup, as in transformers.
double schedule_factor(ScheduleKind, int64_t done, int64_t warmup, int64_t total);

}  // namespace qlora
