// Annotations of AlpacaEval (Li et al. 2023), annotations.json, an array:
//   {"instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference",
//    "preference_raw_completion"}, the last one "raw_completion" in its earlier versions
// preference is 1 (output_1), 2 (output_2), 1.5 or 0 (a draw), anything between for annotators that give a
// probability, null when nothing could be read. The outputs were shown in a random order that is not kept. An
// item is known by its instruction; systems without a generator are called output_1 and output_2.
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "eval/judge/alpaca_eval_outputs.h"
#include "eval/judge/layouts.h"

namespace qlora {

namespace {

using OrderedJson = nlohmann::ordered_json;

bool fits(const Row& row) {
  return row.has("output_1") && row.has("output_2") && row.json().contains("preference");
}

void read(const Row& row, const JudgmentSource&, std::vector<Vote>& votes) {
  Vote vote;
  vote.item = item_of_words(row.text("instruction"));
  const std::vector<AlpacaEvalOutput> outputs = alpaca_eval_outputs(row);
  QLORA_CHECK(outputs.size() == 2, data, "{}: expected `output_1` and `output_2`, and no id of a question",
              row.where());
  vote.order_known = false;
  vote.first = outputs[0].system;
  vote.second = outputs[1].system;
  QLORA_CHECK(vote.first != vote.second, data, "{}: compares {} with itself", row.where(), vote.first);
  vote.first_length = static_cast<int64_t>(outputs[0].text.size());
  vote.second_length = static_cast<int64_t>(outputs[1].text.size());
  vote.judge = row.text("annotator");
  vote.line = row.line();
  for (const char* key : {"preference_raw_completion", "raw_completion"})
    if (auto raw = row.json().find(key); row.has(key) && vote.raw.empty())
      vote.raw = raw->is_string() ? raw->get<std::string>() : raw->dump();
  if (row.has("preference")) {
    double preference = row.number("preference");
    QLORA_CHECK(preference == 0 || (preference >= 1 && preference <= 2), data,
                "{}: `preference` must lie between 1 (output_1) and 2 (output_2), or be 0 (a draw), not {}",
                row.where(), preference);
    if (preference == 0) preference = 1.5;
    vote.first_score = 2 - preference;
    vote.second_score = preference - 1;
    vote.verdict = verdict_of(*vote.first_score, *vote.second_score);
  }
  votes.push_back(std::move(vote));
}

std::map<std::string, std::string> write(std::span<const Vote> votes) {
  OrderedJson rows = OrderedJson::array();
  for (const Vote& vote : votes) {
    QLORA_CHECK(vote.pairwise() && !vote.points && vote.turn == 1, usage,
                "item {} of {}: AlpacaEval's annotations hold preferences between two answers of one turn",
                vote.item, vote.first);
    OrderedJson preference;
    if (vote.second_score)
      preference = 1 + *vote.second_score;
    else if (vote.valid())
      preference = vote.verdict == Verdict::first_wins    ? 1.0
                   : vote.verdict == Verdict::second_wins ? 2.0
                                                          : 1.5;
    rows.push_back({{"instruction", vote.item},
                    {"output_1", vote.first_answer},
                    {"output_2", vote.second_answer},
                    {"generator_1", vote.first},
                    {"generator_2", vote.second},
                    {"annotator", vote.judge},
                    {"preference", preference},
                    {"preference_raw_completion", vote.raw}});
  }
  return {{"annotations.json", rows.dump(1, ' ', true) + "\n"}};
}

}  // namespace

const JudgmentLayout kAlpacaEvalLayout = {
    "alpaca-eval", "annotations of AlpacaEval; what is written names items and answers by their ids",
    false,         fits,
    read,          write};

}  // namespace qlora
