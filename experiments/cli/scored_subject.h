#pragma once
// Who is scored when a command names a model and maybe an adapter: the base, a run that the store knows, or
// any other adapter by its content.

#include "experiments/cli/loaded_model.h"
#include "results/records.h"
#include "results/store.h"

namespace qlora {

// `base`: the base's key. `step` becomes that of a run's last state. Without a store, adapters are known by
// their content alone.
SubjectModel scored_subject(const Store*, const ModelArguments&, const RunConfig&, const Digest& base,
                            int64_t& step);

}  // namespace qlora
