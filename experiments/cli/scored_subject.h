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

// --runs, which stands in place of --model, and --memory.
void add_scored_runs_options(CLI::App&, std::vector<std::string>& runs, std::string& memory);
// Refuses what does not go together with --runs.
void check_runs_alone(const ModelArguments&, bool no_store);

}  // namespace qlora
