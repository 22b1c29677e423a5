#include "datasets/dataset.h"

#include <algorithm>
#include <iterator>

#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/base/names.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "datasets/formats/format.h"
#include "datasets/reader.h"
#include "datasets/tokenize.h"

namespace qlora {
namespace {

constexpr uint64_t kSplitSeed = 42;
constexpr double kMaxSourcesCut = 0.20;  // of the examples, under Overlong::automatic
constexpr const char* kOverlongNames[] = {"auto", "truncate", "drop", "error"};

// Which records are for evaluation and which for training; both in the order of the file.
struct Split {
  std::vector<size_t> train, eval;
};

Split split_records(size_t count, const DatasetConfig& config) {
  QLORA_CHECK(config.eval_dataset_size >= 0 && config.max_train_samples >= 0, usage,
              "eval_dataset_size and max_train_samples must not be negative");
  auto eval_size = static_cast<size_t>(config.eval_dataset_size);
  QLORA_CHECK(eval_size < count, data, "{}: eval_dataset_size {} leaves nothing of {} examples to train on",
              config.path, eval_size, count);
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = i;
  PhiloxStream random(mix_seed(kSplitSeed, 0));
  for (size_t i = 0; i < eval_size; ++i)
    std::swap(order[i], order[i + random.below(static_cast<uint32_t>(count - i))]);
  Split split;
  auto cut = order.begin() + static_cast<std::ptrdiff_t>(eval_size);
  split.eval.assign(order.begin(), cut);
  split.train.assign(cut, order.end());
  std::sort(split.eval.begin(), split.eval.end());
  std::sort(split.train.begin(), split.train.end());
  if (config.max_train_samples > 0)
    split.train.resize(std::min(split.train.size(), static_cast<size_t>(config.max_train_samples)));
  return split;
}

// Tokenizes the records at `indices`, drops what must be dropped, and adds to the report.
std::vector<TokenExample> tokenize_records(std::span<const Record> records, std::span<const size_t> indices,
                                           const PromptFormat& format, const DatasetConfig& config,
                                           const Tokenizer& tokenizer, DatasetReport& report) {
  // One after another, so that of several broken records the first is named.
  std::vector<Pieces> pieces;
  for (size_t index : indices) pieces.push_back(format.apply(records[index]));
  std::vector<Tokenized> all(indices.size());
  parallel_for(static_cast<int64_t>(all.size()), 16, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      all[i] = tokenize_pieces(pieces[i], config, tokenizer);
  });
  std::vector<TokenExample> kept;
  kept.reserve(all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    Tokenized& one = all[i];
    TokenExample& example = one.example;
    QLORA_CHECK(!example.truncated || config.overlong != Overlong::error, data,
                "{}: {} tokens more than source_max_len {} and target_max_len {} allow (overlong: error)",
                records[indices[i]].where.text(), example.lost_tokens, config.source_max_len,
                config.target_max_len);
    if (example.ids.empty() || (example.truncated && config.overlong == Overlong::drop)) {
      ++report.dropped;
      continue;
    }
    ++report.examples;
    report.sources_cut += one.source_cut;
    report.targets_cut += one.target_cut;
    report.tokens += static_cast<int64_t>(example.ids.size());
    report.labels += label_count(example);
    report.tokens_lost += example.lost_tokens;
    kept.push_back(std::move(example));
  }
  return kept;
}

void check_report(const DatasetReport& report, const DatasetConfig& config) {
  QLORA_CHECK(report.examples > 0, data,
              "{}: no example is left: all {} were dropped (source_max_len {}, "
              "target_max_len {}, overlong: {})",
              config.path, report.dropped, config.source_max_len, config.target_max_len,
              name_of(config.overlong));
  double cut = static_cast<double>(report.sources_cut) / static_cast<double>(report.examples);
  QLORA_CHECK(config.overlong != Overlong::automatic || cut <= kMaxSourcesCut, data,
              "{}: source_max_len {} would cut the prompts of {:.1f}% of the examples; raise it, or say "
              "`overlong: truncate` (or drop) to accept that",
              config.path, config.source_max_len, 100 * cut);
}

}  // namespace

const char* name_of(Overlong overlong) {
  return kOverlongNames[static_cast<size_t>(overlong)];
}

Overlong overlong_from_name(std::string_view name) {
  for (size_t i = 0; i < std::size(kOverlongNames); ++i)
    if (name == kOverlongNames[i]) return static_cast<Overlong>(i);
  std::vector<std::string> known(std::begin(kOverlongNames), std::end(kOverlongNames));
  fail(ErrorKind::usage, "{}", unknown_name("value of overlong", name, known));
}

std::string describe(const DatasetReport& r) {
  auto percent = [&](int64_t n) {
    return r.examples == 0 ? 0.0 : 100 * static_cast<double>(n) / static_cast<double>(r.examples);
  };
  double all = static_cast<double>(r.tokens + r.tokens_lost);
  return fmt::format(
      "{} examples, {} tokens, {} labels; sources cut in {:.1f}% of them, targets in {:.1f}%, {:.1f}% of the "
      "tokens "
      "lost, {} examples dropped",
      r.examples, r.tokens, r.labels, percent(r.sources_cut), percent(r.targets_cut),
      all == 0 ? 0.0 : 100 * static_cast<double>(r.tokens_lost) / all, r.dropped);
}

Path dataset_file(const DatasetConfig& config) {
  Path path = config.path;
  if (std::filesystem::exists(path)) return path;
  const Path samples = "datasets/samples";
  if (!path.has_parent_path())
    for (const std::string& extension : data_extensions())
      for (const char* packed : {"", ".gz"})
        if (Path file = samples / (config.path + extension + packed); std::filesystem::exists(file))
          return file;
  fail(ErrorKind::data, "no data file {}, and no sample set of that name in {}", config.path,
       samples.string());
}

std::string dataset_hash(const DatasetConfig& config) {
  return hex(sha256(read_file(dataset_file(config))));
}

Dataset load_dataset(const DatasetConfig& config, const Tokenizer& tokenizer) {
  QLORA_CHECK(config.source_max_len >= 1 && config.target_max_len >= 1, usage,
              "source_max_len and target_max_len must be at least 1, found {} and {}", config.source_max_len,
              config.target_max_len);
  const Path file = dataset_file(config);
  const std::string content = read_file(file);
  const std::vector<Record> records = parse_records(file, content);
  const PromptFormat& format = find_format(config.format, records.front());
  const Split split = split_records(records.size(), config);

  if (tokenizer.special().eos < 0)
    warn(
        "{}: the tokenizer names no end of text, so examples have none and a model does not learn to end its "
        "answers; name it as eos_token in the model's tokenizer_config.json",
        config.path);

  Dataset out;
  out.format = format.name;
  out.content_hash = hex(sha256(content));
  out.train = tokenize_records(records, split.train, format, config, tokenizer, out.report);
  out.eval = tokenize_records(records, split.eval, format, config, tokenizer, out.report);
  check_report(out.report, config);
  auto labels = [](const std::vector<TokenExample>& examples) {
    int64_t count = 0;
    for (const TokenExample& example : examples) count += label_count(example);
    return count;
  };
  QLORA_CHECK(labels(out.train) > 0, data,
              "{}: no token of the training examples is a label, so there is nothing to learn", config.path);
  QLORA_CHECK(config.eval_dataset_size == 0 || labels(out.eval) > 0, data,
              "{}: no token of the {} held-out examples is a label, so they have no loss; raise "
              "eval_dataset_size, or set it to 0",
              config.path, config.eval_dataset_size);
  return out;
}

}  // namespace qlora
