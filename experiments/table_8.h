#pragma once
// Table 8 of the QLoRA paper beside a model's own: of each kind of bias of CrowS-Pairs, and in the plain mean
// of the kinds, in how many of a hundred pairs the more stereotyping sentence is the likelier one.

#include <optional>

#include "eval/tasks/run_task.h"
#include "results/table.h"

namespace qlora {

// None for any other task. Kinds that nothing was asked of are empty; kinds that the paper lacks come last.
std::optional<Table> table_8(const Task&, const TaskReport&);

}  // namespace qlora
