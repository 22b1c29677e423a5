#pragma once
// What a sweep file asks for besides training: evaluations and tournaments.

#include <string>
#include <vector>

#include "eval/tasks/mmlu.h"
#include "eval/tasks/run_task.h"
#include "experiments/yaml.h"

namespace qlora {

// evals:
//   - {task: mmlu, data: DIR, protocol: hendrycks, split: test, shots: 5, limit: 4, subjects: [..],
//      at: end, base: true}
//   - {task: loss, at: [start, end]}
//   - {task: hellaswag, data: DIR or FILE, shots: 0, limit: 100, examples: FILE, parts: [..], max_length:
//   512,
//      stride: 256, base: true}
//      any other task of `qlora eval list` that is not answered by generated text
struct EvalSpec {
  std::string task;  // mmlu | loss | a name of the registry
  Where where;
  bool at_start = false, at_end = true;
  // mmlu
  std::string data;
  MmluOptions mmlu;
  TaskOptions options;  // of a task of the registry
  bool base = false;    // score the untuned base too
};
std::vector<EvalSpec> read_evals(const YamlNode& list);

// tournaments: [{name: N, files: GLOB or list, k: 4, orders: 10000, bootstrap: 0, votes: each | majority,
//                systems: [..], preset: P, seed: 0}]
// With a preset and files, the files are restricted to the preset's systems; with a preset alone, its counts
// are rated.
struct TournamentSpec {
  std::string name;
  Where where;
  std::vector<std::string> files;
  std::string preset;
  std::vector<std::string> systems;
  double k = 0;  // 0: the preset's, else 32
  int64_t orders = 10'000, bootstrap = 0, seed = 0;
  std::string votes = "each";
};
std::vector<TournamentSpec> read_tournaments(const YamlNode& list);

}  // namespace qlora
