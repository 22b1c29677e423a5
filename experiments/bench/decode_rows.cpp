// decode: token steps of generation, against llama.cpp on a file of Q4_0, and with drafts against those
// without.

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "core/models/decode_head.h"
#include "core/models/generate.h"
#include "core/text/chat_template.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/step_lab.h"
#include "experiments/generation.h"
#include "experiments/plan.h"

namespace qlora::bench {
namespace {

constexpr int64_t kPromptTokens = 8, kNewTokens = 64;

struct Decode {
  const char* name;
  int64_t batch;
  bool large, all_threads;
  std::optional<double> goal;
};
const Decode kDecodes[] = {
    {"decode/135m/b1/t1", 1, false, false, 1.1},
    {"decode/135m/b1/all-threads", 1, false, true, std::nullopt},
    {"decode/135m/b16/all-threads", 16, false, true, 1.3},
    {"decode/1.1b/b1/t1", 1, true, false, 1.3},
    {"decode/1.1b/b1/all-threads", 1, true, true, std::nullopt},
};

// Tokens a second of all sequences together, the first token of each (its prefill) left out.
std::vector<double> seconds_per_run(Bench& bench, const Model& model, Memory& memory, DType type,
                                    int64_t batch) {
  std::vector<Prompt> prompts;
  for (int64_t i = 0; i < batch; ++i) {
    Prompt& prompt = prompts.emplace_back();
    for (int64_t t = 0; t < kPromptTokens; ++t)
      prompt.tokens.push_back(static_cast<int32_t>((37 * i + 11 * t + 5) % model.config().vocab_size));
  }
  std::vector<double> seconds;
  std::shared_ptr<const FrozenLinear> step_head;  // of all rounds, as a conversation keeps it
  const Effort effort = bench.options().quick ? Effort{1, 1, 0} : Effort{3, 5, 3, 10};
  double passed = 0;  // the first round warms up
  for (int round = 0; round <= effort.most; ++round) {
    if (round > effort.least && passed > effort.seconds) break;
    if (round > 1 && passed > effort.limit) break;
    int64_t tokens = 0;
    double first = 0, last = 0;
    GenerateOptions options;
    options.max_new_tokens = kNewTokens + 1;
    options.numerics = Numerics::decode;  // what `qlora generate` does unless told otherwise
    options.step_head = &step_head;
    options.drafts = 0;  // a step is a token of each sequence
    options.on_token = [&](size_t, int32_t) {
      if (++tokens == batch) first = fair_seconds();
      last = fair_seconds();
      return true;
    };
    generate(model, memory, type, prompts, options);
    if (round > 0) passed += seconds.emplace_back(last - first);
  }
  return seconds;
}

// Weights that a step reads: the linears, and the head of token steps. Of the embedding it reads a row.
size_t bytes_a_token(const Model& model, Memory& memory) {
  const auto head = decode_head(model, memory);
  const size_t dense = model.head().bytes();
  const size_t linears = model.bytes() - (model.config().tied_head ? 1 : 2) * dense;
  return linears + (head ? head->bytes() : dense);
}

// ---- drafts

const char* const kDraftRow = "decode/135m/b1/drafts";
const char* const kDraftRowOfAll = "decode/135m/b1/drafts/all-threads";
constexpr int64_t kAnswerTokens = 128;
const char* const kQuestions[] = {
    "How does a bicycle stay upright while it is moving?",
    "Describe a morning at a market by the sea.",
    "Which three habits would you recommend to somebody who wants to learn a language, and why?",
};

// Greedy answers to the questions, one at a time, as `qlora generate` makes them.
struct Answered {
  std::vector<std::vector<int32_t>> answers;
  double seconds = 0;  // of the steps after the prompts
  int64_t steps = 0, rows = 0, tokens = 0;
};

class DraftLab {
 public:
  DraftLab(const Path& folder, Backend& backend)
      : memory_(backend),
        options_(load_options(config_of({}, folder))),
        model_(load_model(folder, memory_, options_)),
        tokenizer_(load_tokenizer(folder)) {}

  Answered answer(int64_t drafts) {
    const ChatTemplate& chat = chat_template_for(*tokenizer_, "auto");
    Answered all;
    for (const char* question : kQuestions) {
      const ChatMessage message{"user", question};
      const Prompt prompt{encode_chat(chat, *tokenizer_, std::span(&message, 1), true)};
      double begin = 0;
      GenerateOptions options;
      options.max_new_tokens = kAnswerTokens;
      options.numerics = Numerics::decode;
      options.stop_ids = ends_of_answers(chat, *tokenizer_, *model_);
      options.drafts = drafts;
      options.step_head = &step_head_;
      options.on_prompts = [&](int64_t, int64_t) { begin = fair_seconds(); };
      options.on_step = [&](int64_t rows, int64_t tokens) {
        ++all.steps;
        all.rows += rows;
        all.tokens += tokens;
      };
      all.answers.push_back(generate(*model_, memory_, options_.type, std::span(&prompt, 1), options)[0]);
      all.seconds += fair_seconds() - begin;
    }
    return all;
  }

 private:
  Memory memory_;
  LoadOptions options_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const FrozenLinear> step_head_;
};

void draft_row(Bench& bench, const char* name, int threads) {
  const Path& folder = bench.options().model;
  if (std::string why = missing_model(folder); !why.empty()) {
    bench.emit(missing_row(name, "tokens/s", threads, why));
    return;
  }
  set_thread_count(threads);
  DraftLab lab(folder, bench.backend());
  const int rounds = bench.options().quick ? 1 : 3;
  const Answered plain = lab.answer(0);  // warms up, and makes the head of token steps
  Answered drafted;
  std::vector<std::vector<double>> seconds(2);
  bool equal = true;
  for (int round = 0; round < rounds; ++round) {
    drafted = lab.answer(-1);
    seconds[0].push_back(drafted.seconds);
    const Answered again = lab.answer(0);
    seconds[1].push_back(again.seconds);
    equal = equal && drafted.answers == plain.answers && again.answers == plain.answers;
  }
  Row row = paired_row(name, "tokens/s", static_cast<double>(plain.tokens), seconds, threads);
  row.against = "the same without drafts";
  const auto steps = static_cast<double>(drafted.steps);
  row.note = fmt::format("{} answers of {} tokens: {:.2f} tokens and {:.2f} rows a step",
                         plain.answers.size(), plain.tokens, static_cast<double>(drafted.tokens) / steps,
                         static_cast<double>(drafted.rows) / steps);
  if (!equal) {
    row.ratio.reset();
    add_note(row, "the answers with drafts are not those without");
  }
  bench.emit(std::move(row));
  set_thread_count(bench.most_threads());
}

// ---- rows

void decode_row(Bench& bench, const Decode& d) {
  const Path& folder = d.large ? bench.options().model_1b : bench.options().model;
  const int threads = d.all_threads ? bench.most_threads() : 1;
  if (d.large && folder.empty()) {
    bench.emit(missing_row(d.name, "tokens/s", threads,
                           "not measured: no --model-1b FOLDER (scripts/peers/synthetic_model.py)"));
    return;
  }
  if (std::string why = missing_model(folder); !why.empty()) {
    bench.emit(missing_row(d.name, "tokens/s", threads, why));
    return;
  }
  set_thread_count(threads);
  Memory memory(bench.backend());
  const LoadOptions options = load_options(config_of({}, folder));
  auto model = load_model(folder, memory, options);
  Row row = single_row(d.name, "tokens/s", static_cast<double>(d.batch * kNewTokens),
                       seconds_per_run(bench, *model, memory, options.type, d.batch), threads);
  row.goal = d.goal;
  row.against = "llama.cpp on Q4_0 --pure (scripts/bench.sh --with-llama-cpp)";
  if (!d.goal) {
    const size_t bytes = bytes_a_token(*model, memory);
    row.note = fmt::format("{} a token of {:.1f} GB/s that this run reads at most: {:.2f} of it",
                           format_bytes(bytes), bench.peaks(threads).read * 1e-9,
                           *row.ours * static_cast<double>(bytes) / bench.peaks(threads).read);
  }
  bench.emit(std::move(row));
  set_thread_count(bench.most_threads());
}

}  // namespace

void decode_rows(Bench& bench) {
  for (const Decode& d : kDecodes)
    if (bench.wants(d.name)) decode_row(bench, d);
  if (bench.wants(kDraftRow)) draft_row(bench, kDraftRow, 1);
  if (bench.wants(kDraftRowOfAll)) draft_row(bench, kDraftRowOfAll, bench.most_threads());
}

}  // namespace qlora::bench
