#include "experiments/cli/scored_subject.h"

#include <CLI/CLI.hpp>

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

void add_scored_runs_options(CLI::App& app, std::vector<std::string>& runs, std::string& memory) {
  app.get_option("--model")->required(false);
  app.add_option("--runs", runs,
                 "instead of --model: sweep=NAME, names or keys of trained runs; the base is loaded once")
      ->delimiter(',');
  app.add_option("--memory", memory, "of --runs: what they may use, 12G, 800M, 80% of what is available")
      ->capture_default_str();
}

void check_runs_alone(const ModelArguments& m, bool no_store) {
  QLORA_CHECK(m.model.empty() && m.adapter.empty() && m.quant.empty() && m.compute_dtype.empty(), usage,
              "--runs: the runs say which model they stand on; without --model, --adapter, --quant and "
              "--compute-dtype");
  QLORA_CHECK(!no_store, usage, "--runs: scores of runs go into --db, --no-store does not fit");
}

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
