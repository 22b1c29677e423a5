#pragma once
// From files in the field's formats to a cursor of tokenized examples.

#include <memory>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/text/example.h"
#include "core/text/tokenizer.h"

namespace qlora {

enum class Overlong { automatic, truncate, drop, error };  // automatic: truncate, but an error above 20% of sources

struct DatasetConfig {
  std::string path;    // a file (.json, .jsonl, .csv, .tsv, each also .gz), or the name of a sample set
  std::string format;  // alpaca, oasst1, chip2, self-instruct, hh-rlhf, longform, input-output, ...; empty: by its keys
  int64_t source_max_len = 1024, target_max_len = 256;
  bool train_on_source = false;
  int64_t max_train_samples = 0;  // 0 = all
  int64_t eval_dataset_size = 0;  // taken away from training, by a shuffle of seed 42
  bool group_by_length = false;
  Overlong overlong = Overlong::automatic;
  uint64_t data_seed = 42;
};

// What tokenizing a set cost, to print before training: nothing is cut without a word.
struct DatasetReport {
  int64_t examples = 0, dropped = 0, sources_cut = 0, targets_cut = 0, tokens_lost = 0, tokens = 0, labels = 0;
};

// A data set read, formatted and tokenized.
struct Dataset {
  std::string format;        // resolved
  std::string content_hash;  // SHA-256 of the file's content
  std::vector<TokenExample> train, eval;
  DatasetReport report;
};

// Throws Error(data) naming file, line and field; Error(usage) for unknown formats (with the nearest).
Dataset load_dataset(const DatasetConfig&, const Tokenizer&);
// SHA-256 of the file's (unpacked) content.
std::string dataset_hash(const DatasetConfig&);
std::vector<std::string> dataset_formats();

// An endless cursor: epochs of seeded shuffles; with group_by_length, examples of like length come together inside a
// bounded window of the shuffle.
std::unique_ptr<ExampleSource> make_sampler(std::shared_ptr<const std::vector<TokenExample>>, uint64_t seed,
                                            bool group_by_length, int64_t batch);

}  // namespace qlora
