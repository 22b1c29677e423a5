#pragma once
// A sweep file: many runs in a few lines. The set of runs is a pure function of the file and of --set,
// finite, in file order, without duplicates.
//
//   name: rank-vs-data            # default: the file's name
//   base: common.yaml             # a file, an inline map, or a list of both; later ones override earlier
//   max_steps: 100                # any option of a run; a list is an axis of the grid
//   parameters:                   # W&B's shape: {value: v}, {values: [..]}, a bare list, or a bare value
//     lora_r: {values: [8, 64]}
//   zip:                          # options that vary together: columns in one map ...
//     - {lora_alpha: [16, 32], lora_dropout: [0.0, 0.1]}
//     - {seed: 0, data_seed: 42}  # ... or rows, one map each
//   exclude: [{lora_r: 64, seed: 1}]            # a list in a condition means any of them
//   include: [{lora_r: 256, dataset: d.json}]   # more runs over the base
//   method: grid                  # or list: then `runs: [{...}, ...]` are the runs
//   run_cap: 20                   # only the first so many
//   evals: [...]                  # experiments/evals.h
//   generate: [...]               # experiments/answer_specs.h
//   judge: [...]
//   tournaments: [...]

#include <string>
#include <vector>

#include "experiments/answer_specs.h"
#include "experiments/config.h"
#include "experiments/evals.h"

namespace qlora {

struct SweepRun {
  std::string name;  // by what is varied: "alpaca_basics-lora_r8"; distinct within the sweep
  Settings settings;
  RunConfig config;
};

struct Sweep {
  std::string name;
  std::string source;               // the file's text, as stored with the results
  std::vector<std::string> varied;  // options that differ between runs, in file order
  std::vector<SweepRun> runs;
  size_t left_out = 0;  // by run_cap
  std::vector<EvalSpec> evals;
  std::vector<GenerateSpec> generates;
  std::vector<JudgeSpec> judges;
  std::vector<TournamentSpec> tournaments;
};

// `overrides` are the --set arguments, key=value: they override the file; an axis of that key becomes this
// value. A list makes an axis. Throws Error(usage) with file:line:column.
Sweep parse_sweep(const YamlNode& file, const std::string& source, const Path& path,
                  const std::vector<std::string>& overrides);
Sweep read_sweep(const Path&, const std::vector<std::string>& overrides);

}  // namespace qlora
