// FastChat's llm_judge (Zheng et al. 2023): model_judgment/JUDGE_pair.jsonl, both orders of showing on one
// line,
//   {"question_id", "model_1", "model_2", "g1_winner", "g2_winner", "judge": [name, prompt],
//   "g1_user_prompt",
//    "g1_judgment", "g2_user_prompt", "g2_judgment", "turn", "tstamp"}
// (model_1 is shown first in game 1 and second in game 2; both winners name a model), and JUDGE_single.jsonl,
//   {"question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"}, score -1: none.
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/names.h"
#include "eval/judge/layouts.h"

namespace qlora {

namespace {

using OrderedJson = nlohmann::ordered_json;

bool pair_fits(const Row& row) {
  return row.has("g1_winner") && row.has("model_1");
}
bool single_fits(const Row& row) {
  return row.has("model") && row.has("score") && row.has("judgment");
}

void read_judge(const Row& row, Vote& vote) {
  auto judge = row.json().find("judge");
  if (judge != row.json().end() && judge->is_array() && judge->size() == 2 && (*judge)[0].is_string() &&
      (*judge)[1].is_string()) {
    vote.judge = (*judge)[0].get<std::string>();
    vote.prompt = (*judge)[1].get<std::string>();
  } else {
    vote.judge = row.text("judge");
  }
}

// Of a game in which `first` was model_1 or model_2.
Verdict winner_of(const Row& row, const char* key, bool first_is_1) {
  const std::string winner = row.text(key);
  if (winner == "tie") return Verdict::tie;
  if (winner == "error") return Verdict::invalid;
  const std::vector<std::string> known = {"model_1", "model_2", "tie", "error"};
  QLORA_CHECK(winner == known[0] || winner == known[1], data, "{}: `{}`: {}", row.where(), key,
              unknown_name("winner", winner, known));
  return (winner == known[0]) == first_is_1 ? Verdict::first_wins : Verdict::second_wins;
}

void read_pair(const Row& row, const JudgmentSource&, std::vector<Vote>& votes) {
  Vote vote;
  vote.item = row.id("question_id");
  vote.turn = static_cast<int>(row.integer_or("turn", 1));
  vote.line = row.line();
  read_judge(row, vote);
  const std::string one = row.text("model_1"), two = row.text("model_2");
  QLORA_CHECK(one != two, data, "{}: judges {} against itself", row.where(), one);
  for (int game : {0, 1}) {
    vote.part = game;
    vote.first = game == 0 ? one : two;
    vote.second = game == 0 ? two : one;
    vote.verdict = winner_of(row, game == 0 ? "g1_winner" : "g2_winner", game == 0);
    vote.raw = row.text_or_empty(game == 0 ? "g1_judgment" : "g2_judgment");
    votes.push_back(vote);
  }
}

void read_single(const Row& row, const JudgmentSource&, std::vector<Vote>& votes) {
  Vote vote;
  vote.item = row.id("question_id");
  vote.turn = static_cast<int>(row.integer_or("turn", 1));
  vote.first = row.text("model");
  vote.line = row.line();
  vote.points = true;
  read_judge(row, vote);
  vote.raw = row.text_or_empty("judgment");
  double score = row.number("score");
  QLORA_CHECK(score >= 0 || score == -1, data, "{}: `score` must not be negative (except -1: none), not {}",
              row.where(), score);
  if (score >= 0) {
    vote.first_score = score;
    vote.verdict = Verdict::tie;  // of one answer there is nothing to win
  }
  votes.push_back(std::move(vote));
}

OrderedJson item_json(const std::string& item) {
  const Json number = Json::parse(item, nullptr, false);
  return number.is_number_integer() && number.dump() == item ? OrderedJson(number.get<int64_t>())
                                                             : OrderedJson(item);
}

OrderedJson judge_json(const Vote& vote) {
  return vote.prompt.empty() ? OrderedJson(vote.judge) : OrderedJson{vote.judge, vote.prompt};
}

std::string winner_name(const Vote& vote, bool first_is_1) {
  switch (vote.verdict) {
    case Verdict::first_wins:
      return first_is_1 ? "model_1" : "model_2";
    case Verdict::second_wins:
      return first_is_1 ? "model_2" : "model_1";
    case Verdict::invalid:
      return "error";
    default:
      return "tie";
  }
}

OrderedJson pair_row(const Vote& one, const Vote& two) {
  return {{"question_id", item_json(one.item)},
          {"model_1", one.first},
          {"model_2", one.second},
          {"g1_winner", winner_name(one, true)},
          {"g2_winner", winner_name(two, false)},
          {"judge", judge_json(one)},
          {"g1_judgment", one.raw},
          {"g2_judgment", two.raw},
          {"turn", one.turn}};
}

std::map<std::string, std::string> write_pair(std::span<const Vote> votes) {
  std::map<std::string, std::string> files;
  std::map<std::string, const Vote*> waiting;  // for the other order, by what both have in common
  auto key = [](const Vote& v, bool swapped) {
    return OrderedJson{v.item,
                       v.turn,
                       v.judge,
                       v.prompt,
                       v.rater,
                       swapped ? v.second : v.first,
                       swapped ? v.first : v.second}
        .dump();
  };
  for (const Vote& vote : votes) {
    QLORA_CHECK(
        vote.pairwise() && !vote.points && vote.order_known && vote.verdict != Verdict::both_bad, usage,
        "item {} of {}: FastChat's pairs hold verdicts between two answers in a known order, nothing else",
        vote.item, vote.first);
    auto other = waiting.find(key(vote, true));
    if (other == waiting.end()) {
      waiting[key(vote, false)] = &vote;
      continue;
    }
    files[vote.judge + "_pair.jsonl"] += pair_row(*other->second, vote).dump(-1, ' ', true) + "\n";
    waiting.erase(other);
  }
  if (!waiting.empty()) {
    const Vote& alone = *waiting.begin()->second;
    fail(ErrorKind::usage, "item {}: {} against {} was judged in one order only; FastChat's pairs hold both",
         alone.item, alone.first, alone.second);
  }
  return files;
}

std::map<std::string, std::string> write_single(std::span<const Vote> votes) {
  std::map<std::string, std::string> files;
  for (const Vote& vote : votes) {
    QLORA_CHECK(!vote.pairwise(), usage,
                "item {} of {} and {}: FastChat's singles hold scores of one answer alone", vote.item,
                vote.first, vote.second);
    OrderedJson row = {{"question_id", item_json(vote.item)},
                       {"model", vote.first},
                       {"judge", judge_json(vote)},
                       {"judgment", vote.raw},
                       {"score", vote.first_score.value_or(-1)},
                       {"turn", vote.turn}};
    files[vote.judge + "_single.jsonl"] += row.dump(-1, ' ', true) + "\n";
  }
  return files;
}

}  // namespace

const JudgmentLayout kFastchatPairLayout = {"fastchat-pair",
                                    "FastChat's llm_judge, pairs: both orders on one line; written without "
                                    "g1_user_prompt, g2_user_prompt, tstamp",
                                    false,
                                    pair_fits,
                                    read_pair,
                                    write_pair};
const JudgmentLayout kFastchatSingleLayout = {
    "fastchat-single",
    "FastChat's llm_judge, scores of single answers; written without user_prompt, tstamp",
    false,
    single_fits,
    read_single,
    write_single};

}  // namespace qlora
