#pragma once
// From files in the field's formats to a cursor of tokenized examples.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "core/text/example.h"
#include "core/text/tokenizer.h"

namespace qlora {

// What happens to examples longer than source_max_len or target_max_len. automatic: truncate, but an error
// when more than 20% of the sources would be cut, because that is nearly always a mistake in source_max_len.
enum class Overlong { automatic, truncate, drop, error };
const char* name_of(Overlong);
Overlong overlong_from_name(std::string_view);  // throws Error(usage) with the nearest name

struct DatasetConfig {
  // A file (.json, .jsonl, .csv, .tsv, .parquet, each also .gz), or the name of a set in datasets/samples.
  std::string path;
  std::string format;  // one of dataset_formats(); empty: recognised by the first record's fields
  int64_t source_max_len = 1024, target_max_len = 256;  // in tokens, with BOS and EOS
  bool train_on_source = false;
  int64_t max_train_samples = 0;  // the first so many of what is left for training; 0 = all
  int64_t eval_dataset_size = 0;  // taken away from training, by a shuffle of seed 42
  bool group_by_length = false;
  Overlong overlong = Overlong::automatic;
  uint64_t data_seed = 42;
};

// What tokenizing a set cost, to print before training: nothing is cut without a word.
struct DatasetReport {
  int64_t examples = 0;                      // kept, for training and evaluation together
  int64_t dropped = 0;                       // overlong ones under `drop`, and those without a single token
  int64_t sources_cut = 0, targets_cut = 0;  // examples whose source or target was truncated
  int64_t tokens = 0, labels = 0;            // kept
  int64_t tokens_lost = 0;                   // by truncation
};
// One line: "120 examples, 9,800 tokens, 4,100 labels; sources cut in 1.7% of them, ..."
std::string describe(const DatasetReport&);

// A data set read, formatted and tokenized.
struct Dataset {
  std::string format;        // resolved
  std::string content_hash;  // SHA-256 of the file's content
  std::vector<TokenExample> train, eval;
  DatasetReport report;
};

// Source = BOS + input, target = output + EOS; each is encoded alone, without the special tokens that the
// tokenizer would add, and cut at its right end to its own length, as qlora.py does it. BOS and EOS are those
// that the tokenizer names; where it names none, none is added, and a missing EOS is warned of. The source is
// no label unless train_on_source; with an empty input (oasst1, hh-rlhf) the source is BOS alone, so that
// everything after it is learned. Throws Error(data) naming file, line and field, or when not one label is
// left; Error(usage) for unknown formats (with the nearest) and impossible sizes.
Dataset load_dataset(const DatasetConfig&, const Tokenizer&);
// The file that config.path stands for. Throws Error(data) when there is none.
Path dataset_file(const DatasetConfig&);
// SHA-256 of the file's (unpacked) content.
std::string dataset_hash(const DatasetConfig&);
std::vector<std::string> dataset_formats();

// An endless cursor: epochs of seeded shuffles. With group_by_length the stream of shuffled examples is cut
// into windows (at most 50 batches, at most a quarter of the set); inside a window, each `batch` examples
// that follow one another are of like length, and these groups come in a shuffled order. Its place is one
// number, since the order is a pure function of seed and place; save() gives {"position", "epoch",
// "examples", "seed", "group_by_length", "batch"}, and restore() refuses a place in another set or order, as
// Error(data). REQUIRES: the set is not empty, batch >= 1.
std::unique_ptr<ExampleSource> make_sampler(std::shared_ptr<const std::vector<TokenExample>>, uint64_t seed,
                                            bool group_by_length, int64_t batch);

}  // namespace qlora
