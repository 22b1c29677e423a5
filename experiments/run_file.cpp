#include "experiments/run_file.h"

#include <nlohmann/json.hpp>

namespace qlora {
namespace {

constexpr const char* kName = "qlora_run.json";

}  // namespace

void write_run_file(const Path& run_folder, const RunFile& run) {
  Json json = {{"name", run.name},
               {"key", hex(run.key)},
               {"base_key", hex(run.base)},
               {"config", run.config.to_json()}};
  write_file(run_folder / kName, json.dump(1) + "\n");
}

std::optional<RunFile> read_run_file(const Path& run_folder) {
  Path path = run_folder / kName;
  if (!std::filesystem::exists(path)) return std::nullopt;
  Json json = parse_json(read_file(path), path.string());
  try {
    RunFile run;
    run.name = json.at("name");
    run.key = digest_from_hex(json.at("key").get<std::string>());
    run.base = digest_from_hex(json.at("base_key").get<std::string>());
    run.config = RunConfig::from_json(json.at("config"));
    return run;
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: not a run's file: {}", path.string(), e.what());
  }
}

Path checkpoint_folder(const Path& run_folder, int64_t step) {
  return run_folder / fmt::format("checkpoint-{}", step);
}

Path score_file(const Path& run_folder, const Digest& evaluation) {
  return run_folder / fmt::format("score-{}.json", hex(evaluation).substr(0, 16));
}

Path history_file(const Path& run_folder) {
  return run_folder / "trainer_state.json";
}

Path run_folder_of(const Path& adapter) {
  Path folder = std::filesystem::weakly_canonical(adapter);
  return (folder.filename().empty() ? folder.parent_path() : folder).parent_path();
}

}  // namespace qlora
