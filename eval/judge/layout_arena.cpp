// Battles of Chatbot Arena (Chiang et al. 2024), an array or JSON lines:
//   {"model_a", "model_b", "winner": "model_a" | "model_b" | "tie" | "tie (bothbad)", "judge", "turn",
//   "anony",
//    "language", "tstamp"}
// model_a stands on the left, which counts as shown first. A battle without a question_id has a prompt of its
// own, named by its place in the file.
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/names.h"
#include "eval/judge/layouts.h"

namespace qlora {

namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::string_view kUser = "arena_user";

bool fits(const Row& row) {
  return row.has("model_a") && row.has("model_b") && row.has("winner");
}

Verdict winner_of(const Row& row) {
  const std::string winner = row.text("winner");
  const std::vector<std::string> known = {"model_a", "model_b", "tie", "tie (bothbad)"};
  for (int i = 0; i < 4; ++i)
    if (winner == known[static_cast<size_t>(i)]) return static_cast<Verdict>(i);
  fail(ErrorKind::data, "{}: {}", row.where(), unknown_name("winner", winner, known));
}

std::string item_of_place(const Row& row, const JudgmentSource& source) {
  const std::string line = fmt::format("{}:{}", source.digits, row.line());
  return row.on_line() == 0 ? line : fmt::format("{}:{}", line, row.on_line());
}

void read(const Row& row, const JudgmentSource& source, std::vector<Vote>& votes) {
  Vote vote;
  vote.item = row.has("question_id") ? row.id("question_id") : item_of_place(row, source);
  vote.turn = static_cast<int>(row.integer_or("turn", 1));
  vote.first = row.text("model_a");
  vote.second = row.text("model_b");
  QLORA_CHECK(vote.first != vote.second, data, "{}: a battle of {} against itself", row.where(), vote.first);
  vote.verdict = winner_of(row);
  vote.judge = row.text_or_empty("judge");
  if (vote.judge.empty() || vote.judge.starts_with(kUser)) {
    vote.rater = vote.judge;
    vote.judge = "human";
  }
  vote.line = row.line();
  votes.push_back(std::move(vote));
}

std::map<std::string, std::string> write(std::span<const Vote> votes) {
  static constexpr const char* kWinners[] = {"model_a", "model_b", "tie", "tie (bothbad)"};
  std::string text;
  for (const Vote& vote : votes) {
    if (!vote.valid()) continue;  // a battle without a winner is none
    QLORA_CHECK(vote.pairwise() && vote.order_known && !vote.points, usage,
                "item {} of {}: a battle is a verdict between two answers in a known order", vote.item,
                vote.first);
    OrderedJson row = {{"question_id", vote.item},
                       {"model_a", vote.first},
                       {"model_b", vote.second},
                       {"winner", kWinners[static_cast<int>(vote.verdict)]},
                       {"judge", vote.rater.starts_with(kUser) ? vote.rater : vote.judge},
                       {"turn", vote.turn}};
    text += row.dump(-1, ' ', true) + "\n";
  }
  return {{"battles.jsonl", text}};
}

}  // namespace

bool names_were_shown(const Row& row) {
  auto anonymous = row.json().find("anony");
  return anonymous != row.json().end() && *anonymous == false;
}

const JudgmentLayout kArenaLayout = {"arena",
                             "battles of Chatbot Arena; written without those that have no verdict, and "
                             "without anony, language, tstamp",
                             false,
                             fits,
                             read,
                             write};

}  // namespace qlora
