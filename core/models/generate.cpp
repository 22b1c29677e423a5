#include "core/models/generate.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/models/decode_head.h"
#include "core/models/drafts.h"
#include "core/ops/kept_rows.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// Rows of one forward pass over prompts, where more than one prompt waits.
constexpr int64_t kPromptRows = 4096;
// Tokens that must be saved before a prompt waits for the pass that reads another one.
constexpr int64_t kWorthWaiting = 64;

int64_t common_beginning(std::span<const int32_t> a, std::span<const int32_t> b) {
  return std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(std::min(a.size(), b.size())), b.begin())
             .first -
         a.begin();
}

// Adds `tokens` of one sequence to the axis; neighbours of one adapter share a span. A sequence that has no
// tokens now stays, without rows.
void append_sequence(Axis& axis, std::span<const int32_t> tokens, int64_t past, Adapter* adapter) {
  const int64_t lo = axis.rows();
  for (size_t i = 0; i < tokens.size(); ++i) {
    auto position = static_cast<int32_t>(past + static_cast<int64_t>(i));
    axis.tokens.push_back(tokens[i]);
    axis.positions.push_back(position);
    axis.keys.push_back({0, static_cast<uint32_t>(position)});
  }
  axis.cu.push_back(static_cast<int32_t>(axis.rows()));
  if (tokens.empty()) return;
  if (!axis.spans.empty() && axis.spans.back().adapter == adapter) {
    axis.spans.back().hi = axis.rows();
  } else {
    axis.spans.push_back({.lo = lo, .hi = axis.rows(), .adapter = adapter});
  }
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// On the processor rows have the same bits in any number. The counting backend stands for it where a plan of
// memory asks for drafts; what pays cannot be measured there.
bool makes_drafts(const Backend& backend, int64_t drafts) {
  if (dynamic_cast<const CountingBackend*>(&backend) != nullptr) return drafts > 0;
  return drafts != 0 && backend.host_memory();
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
        order_(answerable()),
        slots_(slot_count()),
        cache_(memory, model.config().layers, capacities(), model.config().kv_heads * model.config().head_dim,
               type_of_kept(memory.backend(), type, model.operands())),
        step_head_(options.step_head != nullptr ? *options.step_head : nullptr),
        answers_(prompts.size()),
        drafts_(makes_drafts(memory.backend(), options.drafts)),
        plan_(options.drafts) {}

  std::vector<std::vector<int32_t>> run() {
    for (size_t i = 0; i < prompts_.size(); ++i)
      if (room(i) <= 0) end(i);
    for (;;) {
      if (std::vector<size_t> fresh = admit(); !fresh.empty()) {
        read_prompts(fresh);
      } else if (std::vector<size_t> open = open_slots(); !open.empty()) {
        step(open);
      } else {
        keep();
        return std::move(answers_);
      }
    }
  }

 private:
  // A sequence of the cache, and the prompt that it works on.
  struct Slot {
    std::optional<size_t> prompt;
    std::vector<int32_t> pending;  // tokens that the model has not seen
    int64_t drafted = 0;           // of them, at the end: guessed
    DraftText text;
    DraftRecord record;
    std::optional<Sampler> sampler;
    // The prompt that its first `read` rows in the cache are of: read exactly, whatever follows them.
    std::optional<size_t> beginning;
    int64_t read = 0;
  };

  // New tokens that prompt i may get: the model's positions are not exceeded.
  int64_t room(size_t i) const {
    auto length = static_cast<int64_t>(prompts_[i].tokens.size());
    return std::min(options_.max_new_tokens, model_.config().max_positions - length);
  }

  // The prompts that have room for an answer.
  std::vector<size_t> answerable() const {
    std::vector<size_t> order;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      check(i);
      if (room(i) > 0) order.push_back(i);
    }
    return order;
  }

  size_t slot_count() const {
    const auto batch = static_cast<size_t>(std::max<int64_t>(options_.batch, 0));
    return batch == 0 ? order_.size() : std::min(batch, order_.size());
  }
  bool all_at_once() const { return slots_.size() == order_.size(); }

  // Rows of each slot that the model sees: a prompt and all but the last of its new tokens.
  std::vector<int64_t> capacities() const {
    std::vector<int64_t> rows;
    for (size_t i : order_) rows.push_back(static_cast<int64_t>(prompts_[i].tokens.size()) + room(i) - 1);
    if (all_at_once()) return rows;
    return std::vector<int64_t>(slots_.size(), *std::max_element(rows.begin(), rows.end()));
  }

  void check(size_t i) const {
    const std::vector<int32_t>& tokens = prompts_[i].tokens;
    const HfConfig& config = model_.config();
    QLORA_CHECK(!tokens.empty(), usage, "generate: prompt {} has no tokens", i);
    QLORA_CHECK(static_cast<int64_t>(tokens.size()) <= config.max_positions, usage,
                "generate: prompt {} has {} tokens, the model has {} positions", i, tokens.size(),
                config.max_positions);
    for (int32_t token : tokens)
      QLORA_CHECK(token >= 0 && token < config.vocab_size, usage,
                  "generate: prompt {} has token {}, the model's vocabulary has {}", i, token,
                  config.vocab_size);
    check_sampling(prompts_[i].sampling);
  }

  // The next prompts into the free slots, as many as one pass may read; returns their slots. Where every
  // prompt has a slot of its own size, it takes no other.
  std::vector<size_t> admit() {
    std::vector<size_t> fresh;
    int64_t rows = 0;
    for (size_t s = 0; s < slots_.size() && next_ < order_.size(); ++s) {
      if (slots_[s].prompt || (all_at_once() && s != next_)) continue;
      const Prompt& prompt = prompts_[order_[next_]];
      const Beginning known = beginning_of(prompt, s);
      if (known.later - known.rows >= kWorthWaiting) break;
      rows += static_cast<int64_t>(prompt.tokens.size()) - known.rows;
      if (!fresh.empty() && rows > kPromptRows) break;
      Slot& slot = slots_[s];
      slot.prompt = slot.beginning = order_[next_++];
      slot.read = begin_slot(static_cast<int64_t>(s), known, prompt);
      slot.pending.assign(prompt.tokens.begin() + slot.read, prompt.tokens.end());
      slot.sampler.emplace(prompt.sampling, prompt.tokens);
      slot.text = {};
      slot.record = {};
      if (drafts_) slot.text.add(prompt.tokens);
      fresh.push_back(s);
    }
    return fresh;
  }

  // What the cache has of a prompt: its first `rows` rows are those of `slot`. `later`: rows that there will
  // be after the pass that is being put together.
  struct Beginning {
    size_t slot = 0;
    int64_t rows = 0, later = 0;
  };
  // For a prompt that is to enter slot `own`. Its last token is always read: it says how to go on.
  Beginning beginning_of(const Prompt& prompt, size_t own) const {
    Beginning best{.slot = own};
    if (!options_.reuse_prefixes) return best;
    for (size_t s = 0; s < slots_.size(); ++s) {
      if (!slots_[s].beginning) continue;
      const Prompt& other = prompts_[*slots_[s].beginning];
      if (other.adapter != prompt.adapter) continue;
      const int64_t common = std::min(common_beginning(prompt.tokens, other.tokens),
                                      static_cast<int64_t>(prompt.tokens.size()) - 1);
      best.later = std::max(best.later, common);
      const int64_t rows = std::min(common, slots_[s].read);
      if (rows <= best.rows) continue;
      best.rows = rows;
      best.slot = s;
    }
    return best;
  }

  // Puts what is known of a prompt into a slot's rows; returns how many. What an earlier call has kept is
  // freed.
  int64_t begin_slot(int64_t s, const Beginning& known, const Prompt& prompt) {
    if (options_.kept == nullptr) {
      cache_.begin(s, static_cast<int64_t>(known.slot), known.rows);
      return known.rows;
    }
    const ReadTokens before = std::exchange(*options_.kept, {});
    if (!before.cache || before.adapter != prompt.adapter) return 0;
    const int64_t rows = std::min(common_beginning(prompt.tokens, before.tokens),
                                  static_cast<int64_t>(prompt.tokens.size()) - 1);
    cache_.begin(s, *before.cache, 0, rows);
    return rows;
  }

  // Rows of the decode class have other bits than the next prompt's would have.
  void keep() {
    if (options_.kept == nullptr || slots_.empty()) return;
    std::vector<int32_t> tokens = prompts_[0].tokens;
    if (options_.numerics == Numerics::exact)
      tokens.insert(tokens.end(), answers_[0].begin(), answers_[0].end() - 1);  // the last was never read
    *options_.kept = {std::move(tokens), prompts_[0].adapter, std::move(cache_)};
  }

  void read_prompts(const std::vector<size_t>& fresh) {
    int64_t tokens = 0, read = 0;
    for (size_t s : fresh) {
      Slot& slot = slots_[s];
      slot.read = static_cast<int64_t>(prompts_[*slot.prompt].tokens.size());
      tokens += slot.read;
      read += static_cast<int64_t>(slot.pending.size());
    }
    take(fresh, pass(fresh, Numerics::exact));
    if (options_.on_prompts) options_.on_prompts(tokens, read);
  }

  std::vector<size_t> open_slots() const {
    std::vector<size_t> open;
    for (size_t s = 0; s < slots_.size(); ++s)
      if (slots_[s].prompt) open.push_back(s);
    return open;
  }

  // The tokens that follow those that were taken last.
  void step(const std::vector<size_t>& open) {
    const std::vector<Draft> drafts = draft(open);
    head_of(options_.numerics);  // is made once, and not what a step takes
    const double begin = now_seconds();
    const Taken tokens = pass(open, options_.numerics);
    const double seconds = now_seconds() - begin;
    int64_t drafted = 0;
    for (size_t i = 0; i < open.size(); ++i) {
      drafted += slots_[open[i]].drafted;
      slots_[open[i]].record.learn(drafts[i], tokens[i]);
    }
    plan_.measured(static_cast<int64_t>(open.size()), drafted, seconds);
    const int64_t taken = take(open, tokens);
    if (options_.on_step) options_.on_step(static_cast<int64_t>(open.size()) + drafted, taken);
  }

  // Guesses how each answer goes on, and lets as much of that as the plan says be read in the next step.
  std::vector<Draft> draft(const std::vector<size_t>& open) {
    std::vector<Draft> drafts(open.size());
    const auto rows = static_cast<int64_t>(open.size());
    if (!drafts_ || rows >= kDraftRows) return drafts;
    std::vector<DraftOffer> offers;
    for (size_t i = 0; i < open.size(); ++i) {
      const Slot& slot = slots_[open[i]];
      drafts[i] = slot.text.guess(plan_.longest());
      // One token is chosen whatever comes true.
      const int64_t left = room(*slot.prompt) - static_cast<int64_t>(answers_[*slot.prompt].size()) - 1;
      offers.push_back({&drafts[i], &slot.record, left});
    }
    const std::vector<int64_t> counts = plan_.choose(rows, offers);
    for (size_t i = 0; i < open.size(); ++i) {
      Slot& slot = slots_[open[i]];
      slot.drafted = counts[i];
      slot.pending.insert(slot.pending.end(), drafts[i].tokens.begin(), drafts[i].tokens.begin() + counts[i]);
    }
    return drafts;
  }

  // By slot of a pass: the tokens that follow.
  using Taken = std::vector<std::vector<int32_t>>;

  // One forward pass over the pending tokens of some slots.
  Taken pass(const std::vector<size_t>& slots, Numerics numerics) {
    Axis axis;
    axis.cu = {0};
    std::vector<int32_t> chosen_from;  // rows: of each slot's last token and its draft
    std::vector<Sampler*> samplers;
    std::vector<std::span<const int32_t>> drafts;
    for (size_t s = 0, i = 0; s < slots_.size(); ++s) {
      const bool takes_part = i < slots.size() && slots[i] == s;
      if (takes_part) ++i;
      Slot& slot = slots_[s];
      append_sequence(axis, takes_part ? std::span<const int32_t>(slot.pending) : std::span<int32_t>(),
                      cache_.length(static_cast<int64_t>(s)),
                      takes_part ? prompts_[*slot.prompt].adapter : nullptr);
      if (!takes_part) continue;
      for (int64_t row = axis.rows() - 1 - slot.drafted; row < axis.rows(); ++row)
        chosen_from.push_back(static_cast<int32_t>(row));
      samplers.push_back(&*slot.sampler);
      drafts.push_back(std::span<const int32_t>(slot.pending).last(static_cast<size_t>(slot.drafted)));
    }
    std::vector<int32_t> all(chosen_from.size());
    std::iota(all.begin(), all.end(), 0);
    const WantedRows wanted = wanted_rows(axis, std::move(chosen_from));
    Context c{.backend = memory_.backend(),
              .memory = memory_,
              .axis = &axis,
              .type = type_,
              .cache = &cache_,
              .wanted = wanted.axis.rows() < axis.rows() ? &wanted : nullptr,
              .numerics = numerics};
    Tensor hidden = model_.hidden(c).value;
    cache_.advance(axis.cu);
    const OutputHead output{head_of(numerics), model_.config().logit_softcap};
    return next_tokens(logits_of(c, output, hidden, all), samplers, drafts);
  }

  // Made at the first step that reads it.
  const FrozenLinear& head_of(Numerics numerics) {
    if (numerics == Numerics::exact) return model_.head();
    if (step_head_ == nullptr) step_head_ = decode_head(model_, memory_);
    if (options_.step_head != nullptr) *options_.step_head = step_head_;
    return step_head_ != nullptr ? *step_head_ : model_.head();
  }

  // The tokens that follow, until an answer ends; returns how many. Of what was read, the cache keeps the
  // rows of tokens that were taken, all but the last of which the model has seen.
  int64_t take(const std::vector<size_t>& slots, const Taken& tokens) {
    int64_t all = 0;
    for (size_t i = 0; i < slots.size(); ++i) {
      Slot& slot = slots_[slots[i]];
      const auto s = static_cast<int64_t>(slots[i]);
      const int64_t undrafted = cache_.length(s) - std::exchange(slot.drafted, 0);
      int64_t taken = 0;
      for (bool more = true; more && taken < static_cast<int64_t>(tokens[i].size()); ++taken)
        more = take(slot, tokens[i][static_cast<size_t>(taken)]);
      cache_.cut(s, undrafted + taken - 1);
      all += taken;
    }
    return all;
  }

  // Returns whether the answer goes on.
  bool take(Slot& slot, int32_t token) {
    const size_t prompt = *slot.prompt;
    answers_[prompt].push_back(token);
    const bool more = !options_.on_token || options_.on_token(prompt, token);
    slot.pending = {token};
    if (drafts_) slot.text.add(slot.pending);
    if (more && !is_stop(token) && static_cast<int64_t>(answers_[prompt].size()) < room(prompt)) return true;
    slot.prompt.reset();
    end(prompt);
    return false;
  }

  void end(size_t prompt) const {
    if (options_.on_answer) options_.on_answer(prompt, answers_[prompt]);
  }

  bool is_stop(int32_t token) const {
    return std::find(options_.stop_ids.begin(), options_.stop_ids.end(), token) != options_.stop_ids.end();
  }

  const Model& model_;
  Memory& memory_;
  DType type_;
  std::span<const Prompt> prompts_;
  const GenerateOptions& options_;
  std::vector<size_t> order_;  // of the prompts that are answered
  std::vector<Slot> slots_;
  KvCache cache_;
  std::shared_ptr<const FrozenLinear> step_head_;  // of the decode class, where it has its own
  std::vector<std::vector<int32_t>> answers_;
  size_t next_ = 0;  // in order_: those before it have a slot, or have had one
  bool drafts_;
  DraftPlan plan_;
};

}  // namespace

std::vector<std::vector<int32_t>> generate(const Model& model, Memory& memory, DType type,
                                           std::span<const Prompt> prompts, const GenerateOptions& options) {
  if (prompts.empty()) return {};
  QLORA_CHECK(options.kept == nullptr || prompts.size() == 1, usage,
              "generate: tokens are kept of one prompt, but there are {}", prompts.size());
  QLORA_CHECK(options.drafts >= -1, usage,
              "generate: drafts {}: must be -1 (as many as pay), 0 (none) or above", options.drafts);
  return Generation(model, memory, type, prompts, options).run();
}

}  // namespace qlora
