#pragma once
// What makes a run that run, and an evaluation that evaluation: SHA-256 keys over canonical JSON. Equal keys
// are the same work and are never done twice.

#include <string>

#include "core/base/hash.h"
#include "eval/tasks/mmlu.h"
#include "eval/tasks/run_task.h"
#include "experiments/config.h"

namespace qlora {

// Raised by hand when a change of the program changes results on purpose; every key depends on one of them.
inline constexpr int64_t kSemantics = 1;
// Of runs and bases that compute in bf16. 2: sums over chunks of up to 1,024 values. 3: attention too.
inline constexpr int64_t kBf16Semantics = 3;
// What is stored of a task's items; scores with less do not stand for those with it. 2: texts, what was read
// out of them, whether a choice is greedy.
inline constexpr int64_t kTaskRows = 2;

// SHA-256 (hexadecimal) of what the paths of a configuration hold.
struct ContentHashes {
  std::string model;      // config.json and weights
  std::string tokenizer;  // Tokenizer::content_hash
  std::string data;       // the data set's file, unpacked
};

// The canonical JSON that is hashed: `semantics`, the content hashes, and the flat options that decide
// numbers. An option equal to its first-released default (Option::since) is left out, so a new option keeps
// every old key. Options that have no effect beside others (quant_type with bits: 32) are left out too.
// `table` is for tests.
std::string identity_text(const RunConfig&, const ContentHashes&, std::span<const Option> table = options());
Digest run_key(const RunConfig&, const ContentHashes&);

// The base model as runs see it: its content, quantization and compute type.
Digest base_key(const RunConfig&, const ContentHashes&);

// Runs of equal pack key can share one loaded base: base key, gradient checkpointing, longest example.
std::string pack_key(const RunConfig&, const ContentHashes&);

// The key of an evaluation of a subject (a run's or a base's key) at `step`. `protocol` is the canonical JSON
// of what was asked; `data` the content hash of the questions.
Digest evaluation_key(const Digest& subject, int64_t step, const std::string& task,
                      const std::string& protocol, const std::string& data);
// The protocols of tasks, as canonical JSON: what of the options changes a score.
// rendered: the questions are prompts as they were rendered (is_rendered() of eval/tasks/mmlu_rows.h).
std::string mmlu_protocol(const MmluOptions&, bool rendered = false);
std::string task_protocol(const Task&, const TaskData&, const TaskOptions&);
std::string loss_protocol(const RunConfig&);

// SHA-256 of a model folder: config.json and the weight files that it uses. Large files are hashed once and
// remembered under qlora_home() by path, size, time and inode. Throws Error(data) when there are no weights.
std::string model_content_hash(const Path& folder);

}  // namespace qlora
