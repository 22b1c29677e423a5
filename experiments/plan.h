#pragma once
// Which runs share a base, and the memory that they need: the real training step on the counting backend,
// which allocates nothing and counts everything.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/models/model.h"
#include "core/text/tokenizer.h"
#include "datasets/dataset.h"
#include "experiments/spec.h"
#include "experiments/sweep.h"

namespace qlora {

// A run of a sweep with all that its files say.
struct PlannedRun {
  std::string name;
  RunConfig config;  // as the sweep has it, with the format of its data set resolved
  ContentHashes content;
  Digest key{}, base{};
  std::string pack;              // pack_key
  std::string format;            // of its data set, resolved
  std::vector<int64_t> longest;  // tokens of the longest examples, descending: its worst micro-batch
  size_t memory = 0;             // bytes, when it runs alone
};

// What was found out about a data set, to print once.
struct DataNote {
  std::string dataset;
  std::string text;
};

// Reads models (shapes only), tokenizers and data sets of a sweep's runs; checks what can be checked before
// anything is trained (targets of adapters, formats, labels). Throws Error of the kind that the first broken
// thing deserves.
class Planner {
 public:
  std::vector<PlannedRun> plan(const Sweep&);
  const std::vector<DataNote>& notes() const { return notes_; }
  // Checks that the run's model can be asked these questions: answers of one token, and a context that the
  // first question of every subject fits into. Throws Error(data).
  void check_mmlu(const RunConfig&, const MmluData&, const MmluOptions&);

  // Bytes at the peak of training these runs together. REQUIRES: equal pack keys.
  size_t memory_of(const std::vector<const PlannedRun*>&);
  // Cuts runs (of any pack keys) into packs that fit into `budget` bytes, in order. Throws Error(memory) for
  // a run that does not fit alone.
  std::vector<std::vector<const PlannedRun*>> pack(const std::vector<const PlannedRun*>&, size_t budget);

 private:
  struct Base;  // one model folder under one quantization, on the counting backend
  struct DataInfo {
    std::string hash, format;
    std::vector<int64_t> lengths;  // of the training examples, descending
  };
  Base& base_of(const RunConfig&);
  const DataInfo& data_of(const RunConfig&, const Tokenizer&);
  const std::string& model_hash(const std::string& folder);
  std::shared_ptr<const Tokenizer> tokenizer_of(const std::string& folder);

  std::map<std::string, std::shared_ptr<Base>> bases_;
  std::map<std::string, DataInfo> data_;
  std::map<std::string, std::string> model_hashes_;
  std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers_;
  std::vector<DataNote> notes_;
};

// Memory that may be used now: what the machine has available, within the limits of its cgroup.
size_t available_memory();
// "800M", "12G", "12GiB", "80%" (of what is available), or bytes. Throws Error(usage).
size_t parse_memory(const std::string&);
std::string format_bytes(size_t);  // "812 MiB"

}  // namespace qlora
