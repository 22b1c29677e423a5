// mmlu/val, mmlu/test: five-shot questions of all subjects with their shots computed once a subject against
// every prompt computed whole.
//
// Timed are the shots of every subject alone, a sample of questions that share them (each subject has its
// part of it), and one question of each subject as a whole prompt; with `full`, all questions both ways. What
// all questions of the split take follows: shots once a subject, and the tokens after them, as the whole
// prompts, in seconds a token of the sample.

#include <algorithm>

#include "core/base/check.h"
#include "eval/model_lm/request_tree.h"
#include "experiments/bench/mmlu_sample.h"
#include "experiments/bench/peer_questions.h"
#include "experiments/bench/step_lab.h"

namespace qlora::bench {
namespace {

constexpr int64_t kSample = 171;  // questions: three of a subject of middle size
constexpr uint64_t kSeed = 1;
constexpr size_t kQuickWhole = 8;  // whole prompts of a quick look

using Requests = std::vector<NextTokenRequest>;

double tokens_of(const Requests& requests, bool shared) {
  std::vector<SequenceView> sequences;
  for (const NextTokenRequest& r : requests) sequences.push_back({-1, r.context, {}});
  return static_cast<double>(build_request_tree(sequences, shared).tokens);
}

struct Work {
  Requests shots, questions, whole;
  std::vector<size_t> whole_of;  // by request of `whole`: its place in `questions`
  size_t all = 0;                // questions of the split
  double all_shared = 0, all_whole = 0, shared = 0, begun = 0, alone = 0;  // tokens
};

Work work_of(const MmluPlan& plan, const Options& options) {
  Work work;
  work.all = plan.contexts.size();
  auto request = [&](const std::vector<int32_t>& context) {
    return NextTokenRequest{context, {plan.letter_ids.begin(), plan.letter_ids.end()}, -1};
  };
  Requests all;
  for (const std::vector<int32_t>& context : plan.contexts) all.push_back(request(context));
  for (const std::vector<int32_t>& shots : beginnings(plan))
    if (!shots.empty()) work.shots.push_back(request(shots));
  const auto count = options.full ? static_cast<int64_t>(work.all) : options.quick ? int64_t{0} : kSample;
  const MmluSample sample = sample_questions(plan, count, kSeed);
  for (size_t place : sample.questions) work.questions.push_back(all[place]);
  const size_t step = options.quick ? (sample.one_each.size() + kQuickWhole - 1) / kQuickWhole : 1;
  if (options.full)
    for (size_t i = 0; i < work.all; ++i) work.whole_of.push_back(i);
  else
    for (size_t i = 0; i < sample.one_each.size(); i += step) work.whole_of.push_back(sample.one_each[i]);
  for (size_t i : work.whole_of) work.whole.push_back(work.questions[i]);
  work.all_shared = tokens_of(all, true);
  work.all_whole = tokens_of(all, false);
  work.shared = tokens_of(work.questions, true);
  work.begun = tokens_of(work.shots, true);
  work.alone = tokens_of(work.whole, false);
  return work;
}

std::string note_of(const Work& work, const MmluTree& tree, const Options& options, size_t rounds) {
  std::string note =
      options.full
          ? fmt::format("timed: all {} questions of {} subjects, both ways", work.all, work.shots.size())
          : fmt::format(
                "timed, {} time{}: the shots of {} subjects alone ({} tokens), {} questions that share "
                "them (each subject's part of the {}, seed {}), and {} whole; all {}: the shots once a "
                "subject, what follows them and whole prompts by their tokens",
                rounds, rounds == 1 ? "" : "s", work.shots.size(), work.begun, work.questions.size(),
                work.all, kSeed, work.whole.size(), work.all);
  note += fmt::format("; {:.2f} x fewer tokens", work.all_whole / work.all_shared);
  return tree.why.empty() ? note : tree.why + "; " + note;
}

void prefix_row(Bench& bench, const std::string& split, double goal) {
  const std::string name = "mmlu/" + split + "/prefix";
  if (!bench.wants(name)) return;
  const Options& options = bench.options();
  const MmluTree tree = mmlu_tree();
  std::string why = missing_model(options.model);
  if (why.empty() && !std::filesystem::is_directory(tree.path / split))
    why = fmt::format("{} has no {}", tree.path.string(), split);
  if (!why.empty()) {
    bench.emit(missing_row(name, "questions/s", bench.most_threads(), why));
    return;
  }
  const LoadOptions load = load_options(config_of({}, options.model));
  Memory memory(bench.backend());
  auto model = load_model(options.model, memory, load);
  MmluOptions asked;
  asked.split = split;
  const Work work = work_of(plan_mmlu(read_mmlu(tree.path, asked), asked, *load_tokenizer(options.model),
                                      model->config().max_positions),
                            options);

  auto with = make_model_lm(model, memory, {}, {.type = load.type});
  auto without = make_model_lm(model, memory, {}, {.type = load.type, .reuse_prefixes = false});
  std::vector<NextTokenAnswer> shared, whole;
  with->next_token(std::span(work.questions).first(1));  // to warm up
  without->next_token(std::span(work.whole).first(1));
  Effort effort = options.quick ? Effort{1, 1, 0} : Effort{3, 3, 0, 12};
  effort.warm = false;
  const auto seconds = time_in_turn(
      {[&] { shared = with->next_token(work.questions); }, [&] { whole = without->next_token(work.whole); },
       [&] {
         if (!options.full) with->next_token(work.shots);
       }},
      effort, 0);
  for (size_t i = 0; i < whole.size(); ++i)
    QLORA_CHECK(whole[i].logits == shared[work.whole_of[i]].logits, failure,
                "{}: prefix reuse changes the answer to question {}", name, i);

  // Seconds that all questions of the split take.
  std::vector<double> ours, peer;
  for (size_t round = 0; round < seconds[0].size(); ++round) {
    const double begun = seconds[2][round], rest = seconds[0][round] - begun;
    ours.push_back(options.full ? seconds[0][round]
                                : begun + rest * (work.all_shared - work.begun) / (work.shared - work.begun));
    peer.push_back(seconds[1][round] * work.all_whole / work.alone);
  }
  Row row =
      paired_row(name, "questions/s", static_cast<double>(work.all), {ours, peer}, bench.most_threads());
  if (tree.why.empty()) row.goal = goal;  // which is for the original questions
  row.against = "without prefix reuse";
  row.note = note_of(work, tree, options, seconds[0].size());
  bench.emit(std::move(row));
}

}  // namespace

void scoring_rows(Bench& bench) {
  prefix_row(bench, "val", 4.2);
  prefix_row(bench, "test", 4.8);
}

}  // namespace qlora::bench
