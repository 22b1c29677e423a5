#include "experiments/cli/scored_subject.h"

#include "experiments/eval_rows.h"
#include "experiments/run_file.h"

namespace qlora {
namespace {

// The finished run of the store whose final adapter this is, as long as it is scored on the run's own base.
std::optional<RunInfo> run_of(const Store& store, const Path& adapter, const Digest& base) {
  if (adapter.filename() != "adapter") return std::nullopt;  // a checkpoint is another state
  std::optional<RunFile> file = read_run_file(run_folder_of(adapter));
  if (!file || file->base != base) return std::nullopt;
  std::optional<RunInfo> run = store.find_run(file->key);
  return run && run->state == RunState::finished ? run : std::nullopt;
}

}  // namespace

SubjectModel scored_subject(const Store* store, const ModelArguments& m, const RunConfig& config,
                            const Digest& base, int64_t& step) {
  Path model = Path(m.model).filename().empty() ? Path(m.model).parent_path() : Path(m.model);
  SubjectModel subject = base_subject(base, model.filename().string(), m.model, quant_label(config));
  if (m.adapter.empty()) return subject;
  Path adapter = std::filesystem::weakly_canonical(m.adapter);
  if (adapter.filename().empty()) adapter = adapter.parent_path();
  if (std::optional<RunInfo> run = store != nullptr ? run_of(*store, adapter, base) : std::nullopt) {
    step = run->last_step;
    return {run->key, true, run->name, m.model, subject.quant};
  }
  std::string folder = adapter.parent_path().filename().string();
  subject.key = sha256(hex(base) + " " + hex(sha256_file(adapter / "adapter_model.safetensors")));
  subject.name = folder.empty() ? adapter.filename().string() : folder + "/" + adapter.filename().string();
  return subject;
}

}  // namespace qlora
