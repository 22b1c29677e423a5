#pragma once
// What a sweep file asks for besides training: evaluations and tournaments.

#include <string>
#include <vector>

#include "eval/tasks/mmlu.h"
#include "eval/tasks/run_task.h"
#include "experiments/yaml.h"

namespace qlora {

class RunConfig;

// evals:
//   - {task: mmlu, data: DIR, protocol: hendrycks, split: test, shots: 5, limit: 4, subjects: [..],
//      samples: 100, max_length: 2048, bos: protocol, chat_template: none, fewshot_as_multiturn: false,
//      system_instruction: "", at: end, every: 187, base: true}
//   - {task: loss, at: [start, end], every: 187}
//   - {task: hellaswag, data: DIR or FILE, shots: 0, limit: 100, examples: FILE, fewshot_sampler: lm_eval,
//      fewshot_seed: 1234, parts: [..], max_length: 512, stride: 256, max_new_tokens: 128, at: end, every:
//      187, base: true} any other task of `qlora eval list`, with those of the options that it has
struct EvalSpec {
  std::string task;  // mmlu | loss | a name of the registry
  Where where;
  bool at_start = false, at_end = true;
  int64_t every = 0;  // also while it trains, each time after so many steps; 0: not
  // mmlu
  std::string data;
  MmluOptions mmlu;
  TaskOptions options;  // of a task of the registry
  bool base = false;    // score the untuned base too
};
std::vector<EvalSpec> read_evals(const YamlNode& list);
// What a run asks for by its own options: do_eval, and do_mmlu_eval as qlora.py's callback does it.
std::vector<EvalSpec> own_evals(const RunConfig&);

// tournaments: [{name: N, files: GLOB or list, preset: P, systems: [..], votes: each | majority,
//                model: elo | bt | rao-kupper | davidson, ties: half | drop, seed: 0,
//                k: 4, orders: 10000, rounds: shuffle | bootstrap,             (elo)
//                position: none | shared | judge, anchors: [mean=1000, NAME=R], answers: GLOB or list,
//                (others) interval: none | bootstrap | sandwich, cluster: prompt | battle, bootstrap: 1000}]
// Instead of files, `judge: N` rates the votes of a judge of the same file (experiments/answer_specs.h).
// With a preset and files, the files are restricted to the preset's systems; with a preset alone, its counts
// are rated. What is not given is the preset's, and what that does not say is elo, K = 32, each vote, and a
// bootstrap over prompts where prompts are known.
struct TournamentSpec {
  std::string name;
  Where where;
  std::vector<std::string> files;
  std::string judge;    // the name of a judge of the sweep; empty: files or a preset
  std::string only_by;  // of the votes those by this judge alone; empty: by all
  std::string preset;
  bool stored = false;  // of `qlora elo`: the store's votes
  std::vector<std::string> systems;
  std::vector<Where> system_places, anchor_places;  // one each, of a sweep file; empty: the command line
  std::string votes;                                // empty: the preset's, else each
  std::string model;                                // empty: the preset's, else elo
  std::string ties = "half";
  // online Elo
  double k = 0;        // 0: the preset's, else 32
  int64_t orders = 0;  // 0: 10,000
  std::string rounds;  // empty: shuffle
  // models with a likelihood
  std::string position = "none";
  std::vector<std::string> anchors;
  std::vector<std::string> answers;  // files of answers, to control for their lengths; empty: no control
  // the uncertainty of the data
  std::string interval, cluster;  // empty: the preset's, else bootstrap over prompts
  int64_t bootstrap = -1;         // draws; 0: no interval; -1: the preset's, else 1000 (Elo: 200)
  int64_t seed = 0;
};
std::vector<TournamentSpec> read_tournaments(const YamlNode& list);

}  // namespace qlora
