#include "datasets/tokenize.h"

namespace qlora {
namespace {

constexpr int32_t kNoLabel = -100;

// Cuts the right end; returns how many tokens went.
int64_t truncate(std::vector<int32_t>& ids, int64_t max_len) {
  auto size = static_cast<int64_t>(ids.size());
  if (size <= max_len) return 0;
  ids.resize(static_cast<size_t>(max_len));
  return size - max_len;
}

}  // namespace

Tokenized tokenize_pieces(const Pieces& pieces, const DatasetConfig& config, const Tokenizer& tokenizer) {
  const SpecialTokens& special = tokenizer.special();
  std::vector<int32_t> source, target = tokenizer.encode(pieces.output, false);
  if (special.bos >= 0) source.push_back(special.bos);
  if (!pieces.input.empty()) {
    std::vector<int32_t> input = tokenizer.encode(pieces.input, false);
    source.insert(source.end(), input.begin(), input.end());
  }
  if (special.eos >= 0) target.push_back(special.eos);

  const int64_t source_lost = truncate(source, config.source_max_len);
  const int64_t target_lost = truncate(target, config.target_max_len);
  Tokenized out;
  out.source_cut = source_lost > 0;
  out.target_cut = target_lost > 0;
  TokenExample& example = out.example;
  example.source_tokens = static_cast<int64_t>(source.size());
  example.lost_tokens = source_lost + target_lost;
  example.truncated = example.lost_tokens > 0;
  example.labels = config.train_on_source ? source : std::vector<int32_t>(source.size(), kNoLabel);
  example.labels.insert(example.labels.end(), target.begin(), target.end());
  example.ids = std::move(source);
  example.ids.insert(example.ids.end(), target.begin(), target.end());
  return out;
}

}  // namespace qlora
