#pragma once
// Which runs share a base, and the memory that they need: the real training step on the counting backend,
// which allocates nothing and counts everything.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/models/model.h"
#include "core/text/tokenizer.h"
#include "datasets/dataset.h"
#include "experiments/judge_study.h"
#include "experiments/spec.h"
#include "experiments/sweep.h"

namespace qlora {

// A run of a sweep with all that its files say.
struct PlannedRun {
  std::string name;
  RunConfig config;  // as the sweep has it, with the format of its data set resolved
  ContentHashes content;
  Digest key{}, base{};
  std::string pack;    // pack_key
  std::string format;  // of its data set, resolved
  // Tokens of the longest examples, descending: its worst micro-batch (none: it is not trained), and its
  // worst batch of the held-out loss where that is asked for.
  std::vector<int64_t> longest, longest_eval;
  // Of a pass over questions (MMLU or another task): how many prompts, how long, and how much of it questions
  // (of a subject) have in common.
  int64_t mmlu_prompts = 0, mmlu_prompt_tokens = 0, mmlu_shared_tokens = 0;
  // Of generated answers: how many, the longest prompt, the most new tokens.
  int64_t answers = 0, answer_prompt_tokens = 0, answer_tokens = 0;
  size_t memory = 0;  // bytes, when it runs alone; filled by Planner::fit
};

// What was found out about a data set, to print once.
struct DataNote {
  std::string dataset;
  std::string text;
};

struct JudgeNeed {
  size_t memory = 0;
  size_t room = 0, lasting = 0;  // of it: what passes and what lasts
  int64_t over = 0;  // tokens of the largest prompt and a verdict that the model's context has no room for
};

// Where the figure of a context is from.
enum class ContextFigure : uint8_t { assumed, given, measured, with_others, none };

// Where runs are planned to compute.
struct PlannedDevice {
  CountedKernels kernels = CountedKernels::cpu;
  // Of a GPU: what its driver takes of its memory for a program before the program asks for any.
  size_t context = 0;
  ContextFigure figure = ContextFigure::assumed;
  bool blas = true;                 // cuBLAS is there, and may be used
  std::optional<size_t> kept = {};  // of decoded weights, asked for over every plan (QLORA_CUDA_KEEP)
  size_t host = SIZE_MAX;           // memory of its host, of which some may be pinned; SIZE_MAX: not asked
  bool host_known() const { return host != SIZE_MAX; }
};

// What lasts and what passes, by what it is for, at the moment when most of it is in use.
struct MemoryParts {
  size_t quantized = 0, dense = 0;  // of the base: codes with their scales; embedding, head, norms, biases
  size_t adapters = 0, gradients = 0, optimizer = 0;
  size_t activations = 0;
  size_t buffers = 0;  // of ops, while they run
  size_t logits = 0;   // the largest buffers of ops, whenever: a chunk of logits, in training
  size_t sum() const { return quantized + dense + adapters + gradients + optimizer + activations + buffers; }
};

// Bytes that a worker needs at its peak.
struct MemoryPlan {
  size_t process = 0;    // program, tokenizer and examples: what this process has of them
  size_t loading = 0;    // weights, and what reading them takes beside
  size_t lasting = 0;    // weights, adapters and optimizer
  size_t passing = 0;    // activations of a training step or an evaluation
  size_t scratch = 0;    // what kernels keep for themselves
  size_t paged = 0;      // states in host memory that a GPU copies from and to
  size_t slabs = 0;      // of a GPU, through which they pass
  size_t offloaded = 0;  // inputs of blocks in host memory, likewise (Checkpointing::offload)
  size_t decoded = 0;    // of a block's weights, decoded for cuBLAS
  MemoryParts parts = {};
  PlannedDevice device = {};
  DeviceOptions options = {};  // of its backend
  // Of the memory in which it computes, the GPU's where it is one.
  size_t bytes() const;
  // Of the memory of a GPU's host.
  size_t pinned() const { return paged + offloaded; }
  bool host_has_room() const { return pinned() <= device.host; }
  // Lost to alignment and to what nothing fits into.
  size_t gaps() const { return lasting + passing - parts.sum(); }
};

// Runs that one worker trains and scores together.
struct PlannedPack {
  std::vector<const PlannedRun*> runs;
  Checkpointing checkpointing = Checkpointing::none;  // of all of them
  std::string reason;  // of an automatic choice, or of another mode than the runs ask for; else empty
  MemoryPlan memory = {};
};
// One line for each choice of checkpointing that has a reason, the first few.
std::vector<std::string> describe_choices(const std::vector<PlannedPack>&);

struct PlanBase;

// Reads models (shapes only), tokenizers and data sets of a sweep's runs; checks what can be checked before
// anything is trained (targets of adapters, formats, labels). Throws Error of the kind that the first broken
// thing deserves.
class Planner {
 public:
  explicit Planner(PlannedDevice device = {}) : device_(device) {}
  std::vector<PlannedRun> plan(const Sweep&);
  const PlannedDevice& device() const { return device_; }
  const std::vector<DataNote>& notes() const { return notes_; }
  // The run's base, of the right sizes and without content. A model may be a config.json alone.
  const Model& model_of(const RunConfig&);
  // Checks that the run's model can be asked these questions: answers of one token, and a context that the
  // first questions of every subject fit into; and notes how large the passes are. Throws Error(data).
  void check_mmlu(PlannedRun&, const MmluData&, const MmluOptions&);
  // Likewise for a task of the registry: every request can be made of it.
  void check_task(PlannedRun&, const Task&, const TaskData&, const TaskOptions&);

  // Settles the template of the answers (`auto` is the model's own) and notes how large they are.
  void check_answers(PlannedRun&, const QuestionFile&, GenerationSettings&);
  // What a local judge needs whose longest prompt is `text` and so many more tokens. Throws Error(data) where
  // that prompt alone fills the model's context.
  JudgeNeed judge_need(const JudgeSetup&, const std::string& text, int64_t more_tokens);

  // How much memory every run needs alone, as choose() has it.
  void fit(std::vector<PlannedRun>&, size_t budget);
  // For training and scoring these runs together, in this mode or in the one that they ask for; on a GPU with
  // these options, or with cuBLAS where it is there. REQUIRES: equal pack keys.
  MemoryPlan memory_of(const std::vector<const PlannedRun*>&, Checkpointing, const DeviceOptions&);
  MemoryPlan memory_of(const std::vector<const PlannedRun*>&, Checkpointing);
  MemoryPlan memory_of(const std::vector<const PlannedRun*>&);
  // The fastest way to train these runs together that fits into `budget` bytes and the host's memory, or else
  // the fastest that only the host has no room for, or else the one that needs least: with
  // `gradient_checkpointing: auto`, by the mode; on a GPU through cuBLAS where it is there, with decoded
  // weights of a block that stay where that spares decoding them, or else without them, or by our own tiles.
  // Without a budget: cuBLAS, and nothing stays.
  PlannedPack choose(const std::vector<const PlannedRun*>&, std::optional<size_t> budget);
  // Cuts runs (of any pack keys) into packs that fit into `budget` bytes, in order. Under
  // `gradient_checkpointing: auto` every pack gets the mode, and with it the number of runs, by which its
  // runs are done soonest; all else as choose() has it. Throws Error(memory) for a run that does not fit
  // alone.
  std::vector<PlannedPack> pack(const std::vector<const PlannedRun*>&, size_t budget);

 private:
  struct DataInfo {
    std::string hash, format;
    std::vector<int64_t> lengths, eval_lengths;  // of the examples, descending
  };
  // On the processor, offload is block.
  Checkpointing in_effect(Checkpointing) const;
  // What a run asks for, or what `auto` chooses from, the fastest first.
  std::vector<Checkpointing> modes_of(const RunConfig&) const;
  std::vector<DeviceOptions> device_choices() const;
  MemoryPlan with_decoded(const std::vector<const PlannedRun*>&, Checkpointing, const MemoryPlan&,
                          size_t budget);
  bool fits(const MemoryPlan& m, size_t budget) const { return m.bytes() <= budget && m.host_has_room(); }
  // Throws Error(memory): the run needs more than there is, and what of.
  [[noreturn]] void refuse(const PlannedRun&, size_t budget);
  size_t most_that_fit(const std::vector<const PlannedRun*>&, Checkpointing, const DeviceOptions&,
                       size_t budget);
  PlannedPack next_pack(const std::vector<const PlannedRun*>&, size_t budget);
  PlanBase& base_of(const RunConfig&);
  MemoryPlan plan_of(const PlanBase&) const;
  const DataInfo& data_of(const RunConfig&, const Tokenizer&);
  const std::string& model_hash(const std::string& folder);
  std::shared_ptr<const Tokenizer> tokenizer_of(const std::string& folder);

  PlannedDevice device_;
  std::map<std::string, std::shared_ptr<PlanBase>> bases_;
  std::map<std::string, DataInfo> data_;
  std::map<std::string, std::string> model_hashes_;
  std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers_;
  struct PromptTokens {
    int64_t longest = 0, shared = 0;
    int64_t requests = 0;    // of a task of the registry
    int64_t new_tokens = 0;  // of an answer, where answers are generated
  };
  std::map<std::string, PromptTokens> mmlu_tokens_;
  std::vector<DataNote> notes_;
  size_t process_ = 0;
};

// Memory that may be used now: what the machine has available, within the limits of its control groups.
size_t available_memory();
// What this process has in memory now, and the most it ever had; mapped files count.
size_t resident_memory();
size_t peak_resident_memory();
// "800M", "12G", "12GiB", "80%" (of `available`, or of available_memory()), or bytes. Throws Error(usage).
size_t parse_memory(const std::string&);
size_t parse_memory(const std::string&, size_t available);
std::string format_bytes(size_t);  // "812 MiB"

}  // namespace qlora
