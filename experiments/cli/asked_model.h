#pragma once
// One loaded model that answers a task, and keeps its answers until the evaluation is whole.

#include <functional>
#include <string>

#include "core/base/hash.h"
#include "eval/lm.h"
#include "experiments/cli/loaded_model.h"
#include "results/store.h"

namespace qlora {

// Calls `ask` with an Lm and who answers of it: the model's adapter, or else the base. With a store, answers
// are written there under the evaluation's key after every pass of the model, and those that an interrupted
// command has left are not asked for again. `what` is shown.
void ask_model(LoadedModel&, Store*, const Digest& evaluation, const std::string& what, bool quiet,
               const std::function<void(Lm&, SubjectIndex)>& ask);

}  // namespace qlora
