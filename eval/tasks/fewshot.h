#pragma once
// Which examples stand before which question.

#include <cstddef>
#include <vector>

#include "eval/tasks/run_task.h"

namespace qlora {

// For each of the first `questions` items of the data, the places of its examples in TaskData::examples, in
// the order in which they are shown. FewshotDraw::first: 0, 1, ... for all. Drawn ones follow
// lm-evaluation-harness 0.4.13: one generator, seeded once, draws for one item of the file after the other,
// so that an item's examples depend on its place in the file and on the seed, never on a limit.
std::vector<std::vector<size_t>> choose_examples(const TaskData&, size_t questions);

}  // namespace qlora
