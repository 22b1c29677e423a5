#pragma once
// qlora_run.json, in a run's folder beside its checkpoints and its adapter: which run they are of. By it an
// adapter is known again later, without the sweep file or the data set at hand.

#include <optional>
#include <string>

#include "experiments/config.h"
#include "experiments/spec.h"

namespace qlora {

struct RunFile {
  std::string name;
  Digest key{}, base{};  // run_key, base_key
  RunConfig config;      // resolved
};

void write_run_file(const Path& run_folder, const RunFile&);
// Nothing when the folder has none; Error(data) when it is damaged.
std::optional<RunFile> read_run_file(const Path& run_folder);
Path checkpoint_folder(const Path& run_folder, int64_t step);
// Where a score of an earlier step lies until it is stored.
Path score_file(const Path& run_folder, const Digest& evaluation);
// The log of a run's training and scores, as a Trainer leaves it at its end.
Path history_file(const Path& run_folder);
// The run's folder that an adapter (RUN/adapter or RUN/checkpoint-N) lies in.
Path run_folder_of(const Path& adapter);

}  // namespace qlora
