#include "core/models/generate.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/ops/kv_cache.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// Adds `tokens` of one sequence to the axis, in a span of its own. Sequences that have ended stay, without
// rows.
void append_sequence(Axis& axis, std::span<const int32_t> tokens, int64_t past, Adapter* adapter) {
  int64_t lo = axis.rows();
  for (size_t i = 0; i < tokens.size(); ++i) {
    auto position = static_cast<int32_t>(past + static_cast<int64_t>(i));
    axis.tokens.push_back(tokens[i]);
    axis.positions.push_back(position);
    axis.keys.push_back({0, static_cast<uint32_t>(position)});
  }
  axis.cu.push_back(static_cast<int32_t>(axis.rows()));
  axis.spans.push_back({.lo = lo, .hi = axis.rows(), .adapter = adapter});
}

template <class T>
int32_t first_largest(const T* logits, int64_t vocab) {
  return static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits);
}

// The choice of every row. Rows of f32 are read where they lie, if the host may.
std::vector<int32_t> first_largest(const Tensor& logits) {
  const int64_t rows = logits.rows(), vocab = logits.cols();
  std::vector<int32_t> choices;
  auto choose = [&](const auto* p) {
    for (int64_t row = 0; row < rows; ++row) choices.push_back(first_largest(p + row * vocab, vocab));
  };
  if (logits.type() == DType::f32 && logits.memory().backend().host_memory())
    choose(logits.as<const float>());
  else
    choose(logits.to_doubles().data());
  return choices;
}

class Generation {
 public:
  Generation(const Model& model, Memory& memory, DType type, std::span<const Prompt> prompts,
             const GenerateOptions& options)
      : model_(model),
        memory_(memory),
        type_(type),
        prompts_(prompts),
        options_(options),
        cache_(memory, model.config().layers, capacities(), model.config().kv_heads * model.config().head_dim,
               type),
        answers_(prompts.size()),
        pending_(prompts.size()) {
    for (size_t i = 0; i < prompts.size(); ++i) {
      if (room(i) > 0) pending_[i] = prompts[i].tokens;
    }
  }

  std::vector<std::vector<int32_t>> run() {
    while (std::any_of(pending_.begin(), pending_.end(), [](const auto& p) { return !p.empty(); })) step();
    return std::move(answers_);
  }

 private:
  // New tokens that prompt i may get: the model's positions are not exceeded.
  int64_t room(size_t i) const {
    auto length = static_cast<int64_t>(prompts_[i].tokens.size());
    return std::min(options_.max_new_tokens, model_.config().max_positions - length);
  }

  // Rows of each sequence that the model sees: its prompt and all but the last of its new tokens.
  std::vector<int64_t> capacities() const {
    std::vector<int64_t> rows;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      auto length = static_cast<int64_t>(prompts_[i].tokens.size());
      QLORA_CHECK(length > 0, usage, "generate: prompt {} has no tokens", i);
      QLORA_CHECK(length <= model_.config().max_positions, usage,
                  "generate: prompt {} has {} tokens, the model has {} positions", i, length,
                  model_.config().max_positions);
      rows.push_back(length + std::max<int64_t>(room(i) - 1, 0));
    }
    return rows;
  }

  // One forward pass over the pending tokens: whole prompts first, then one token of each open sequence.
  void step() {
    Axis axis;
    axis.cu = {0};
    std::vector<int32_t> last_rows;
    for (size_t i = 0; i < pending_.size(); ++i) {
      append_sequence(axis, pending_[i], cache_.length(static_cast<int64_t>(i)), prompts_[i].adapter);
      if (!pending_[i].empty()) last_rows.push_back(axis.cu.back() - 1);
    }
    Context c{.backend = memory_.backend(),
              .memory = memory_,
              .axis = &axis,
              .type = type_,
              .cache = &cache_,
              .numerics = prompts_read_ ? options_.numerics : Numerics::exact};
    Tensor hidden = model_.hidden(c).value;
    cache_.advance(axis.cu);
    choose(first_largest(logits_of(c, model_.head(), hidden, last_rows)));
    prompts_read_ = true;
  }

  void choose(std::span<const int32_t> tokens) {
    size_t row = 0;
    for (size_t i = 0; i < pending_.size(); ++i) {
      if (pending_[i].empty()) continue;
      int32_t token = tokens[row++];
      answers_[i].push_back(token);
      bool more = !options_.on_token || options_.on_token(i, token);
      pending_[i].clear();
      if (more && !is_stop(token) && static_cast<int64_t>(answers_[i].size()) < room(i))
        pending_[i] = {token};
    }
  }

  bool is_stop(int32_t token) const {
    return std::find(options_.stop_ids.begin(), options_.stop_ids.end(), token) != options_.stop_ids.end();
  }

  const Model& model_;
  Memory& memory_;
  DType type_;
  std::span<const Prompt> prompts_;
  const GenerateOptions& options_;
  KvCache cache_;
  std::vector<std::vector<int32_t>> answers_;
  std::vector<std::vector<int32_t>> pending_;  // tokens of each sequence that the model has not seen
  bool prompts_read_ = false;
};

}  // namespace

std::vector<std::vector<int32_t>> generate_greedy(const Model& model, Memory& memory, DType type,
                                                  std::span<const Prompt> prompts,
                                                  const GenerateOptions& options) {
  if (prompts.empty()) return {};
  return Generation(model, memory, type, prompts, options).run();
}

}  // namespace qlora
