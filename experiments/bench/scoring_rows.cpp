// mmlu: five-shot questions with their shots computed once a subject against every prompt computed whole.
//
// Both are timed on a sample; the time of either grows with the tokens that it computes, and so the ratio for
// all questions of a split is the sample's, in seconds a token, times the ratio of the tokens of all.

#include <algorithm>

#include "core/base/check.h"
#include "eval/model_lm/request_tree.h"
#include "experiments/bench/peer_questions.h"
#include "experiments/bench/step_lab.h"

namespace qlora::bench {
namespace {

constexpr int64_t kSample = 20;  // questions of each subject
constexpr size_t kWhole = 6;     // of all of them: asked with whole prompts too
const std::vector<std::string> kSubjects = {"anatomy", "astronomy"};

struct Tokens {
  int64_t whole = 0, shared = 0;  // computed without and with reuse
  double ratio() const { return static_cast<double>(whole) / static_cast<double>(shared); }
};

Tokens count_tokens(const MmluPlan& plan) {
  std::vector<SequenceView> sequences;
  for (const std::vector<int32_t>& context : plan.contexts) sequences.push_back({-1, context, {}});
  return {build_request_tree(sequences, false).tokens, build_request_tree(sequences, true).tokens};
}

MmluPlan plan_of(const Path& tree, const MmluOptions& options, const Tokenizer& tokenizer, int64_t context) {
  return plan_mmlu(read_mmlu(tree, options), options, tokenizer, context);
}

std::vector<NextTokenRequest> requests_of(const MmluPlan& plan, size_t step) {
  std::vector<NextTokenRequest> requests;
  for (size_t i = 0; i < plan.contexts.size(); i += step)
    requests.push_back({plan.contexts[i], {plan.letter_ids.begin(), plan.letter_ids.end()}, -1});
  return requests;
}

void prefix_row(Bench& bench, const std::string& split, double goal) {
  const std::string name = "mmlu/" + split + "/prefix";
  if (!bench.wants(name)) return;
  const Path& folder = bench.options().model;
  if (std::string why = missing_model(folder); !why.empty()) {
    bench.emit(missing_row(name, "questions/s", bench.most_threads(), why));
    return;
  }
  const Path tree = mmlu_tree();
  if (!std::filesystem::is_directory(tree / split)) {
    bench.emit(missing_row(name, "questions/s", bench.most_threads(), tree.string() + " has no " + split));
    return;
  }
  const LoadOptions load = load_options(config_of({}, folder));
  Memory memory(bench.backend());
  auto model = load_model(folder, memory, load);
  auto tokenizer = load_tokenizer(folder);
  const int64_t context = model->config().max_positions;
  MmluOptions options;
  options.split = split;
  const MmluPlan split_plan = plan_of(tree, options, *tokenizer, context);
  const Tokens all = count_tokens(split_plan);
  options.subjects = kSubjects;
  options.limit = bench.options().quick ? kSample / 4 : kSample;
  const MmluPlan sample = plan_of(tree, options, *tokenizer, context);
  const Tokens few = count_tokens(sample);
  const size_t step = std::max<size_t>(1, sample.contexts.size() / kWhole);
  const std::vector<NextTokenRequest> every = requests_of(sample, 1), some = requests_of(sample, step);
  double some_tokens = 0;
  for (const NextTokenRequest& r : some) some_tokens += static_cast<double>(r.context.size());

  auto with = make_model_lm(model, memory, {}, {.type = load.type});
  auto without = make_model_lm(model, memory, {}, {.type = load.type, .reuse_prefixes = false});
  std::vector<NextTokenAnswer> shared, whole;
  const auto seconds =
      time_in_turn({[&] { shared = with->next_token(every); }, [&] { whole = without->next_token(some); }},
                   bench.options().quick ? Effort{1, 1, 0} : Effort{3, 3, 0, 12}, 0);
  for (size_t i = 0; i < whole.size(); ++i)
    QLORA_CHECK(whole[i].logits == shared[i * step].logits, failure,
                "{}: prefix reuse changes the answer to question {}", name, i * step);

  // Seconds that all questions of the split take.
  std::vector<double> ours, peer;
  for (size_t round = 0; round < seconds[0].size(); ++round) {
    ours.push_back(seconds[0][round] / static_cast<double>(few.shared) * static_cast<double>(all.shared));
    peer.push_back(seconds[1][round] / some_tokens * static_cast<double>(all.whole));
  }
  const size_t questions = split_plan.contexts.size();
  Row row =
      paired_row(name, "questions/s", static_cast<double>(questions), {ours, peer}, bench.most_threads());
  row.goal = goal;
  row.against = "without prefix reuse";
  row.note = fmt::format("timed on {} questions, {} of them whole; the {} of {} are {:.2f} x fewer tokens",
                         every.size(), some.size(), questions, tree.filename().string(), all.ratio());
  bench.emit(std::move(row));
}

}  // namespace

void scoring_rows(Bench& bench) {
  prefix_row(bench, "val", 4.2);
  prefix_row(bench, "test", 4.8);
}

}  // namespace qlora::bench
