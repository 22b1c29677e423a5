// The QLoRA release's files (verdicts, and 10-point scores) and PRD's human votes:
//   {"review_id", "question_id" | "message_id", "answer1_id", "answer2_id", "reviewer_id", "metadata",
//   "text",
//    "score": 1 | 2 | 3 | -1  or  [a, b], [-1, -1] when nothing could be read}
// A judge whose name does not fit into a file's name stands in metadata as {"judge": NAME}. A human vote has
// question_id, text (of the question) and score alone, one line a rater.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "eval/judge/layouts.h"

namespace qlora {

namespace {

using OrderedJson = nlohmann::ordered_json;

bool fits(const Row& row) {
  return row.has("score") && (row.has("question_id") || row.has("message_id")) && !row.has("model");
}

std::string item_of(const Row& row) {
  for (const char* key : {"question_id", "message_id"})
    if (row.has(key)) return row.id(key);
  fail(ErrorKind::data, "{}: the row has no `question_id` or `message_id`", row.where());
}

double points_of(const Json& value, const Row& row) {
  QLORA_CHECK(value.is_number() && std::isfinite(value.get<double>()), data,
              "{}: a score must be a finite number, not {}", row.where(), value.dump());
  return value.get<double>();
}

void read_points(const Json& pair, const Row& row, Vote& vote) {
  QLORA_CHECK(pair.size() == 2, data, "{}: `score` must hold two scores, not {}", row.where(), pair.dump());
  double first = points_of(pair[0], row), second = points_of(pair[1], row);
  vote.points = true;
  if (first == -1 && second == -1) return;
  QLORA_CHECK(first >= 0 && second >= 0, data,
              "{}: scores must not be negative (except [-1, -1]: none), not {}", row.where(), pair.dump());
  vote.first_score = first;
  vote.second_score = second;
  vote.verdict = verdict_of(first, second);
}

void read_verdict(const Json& score, const Row& row, Vote& vote) {
  for (Verdict verdict : {Verdict::first_wins, Verdict::second_wins, Verdict::tie, Verdict::invalid})
    if (score.is_number_integer() && score == score_of(verdict)) {
      vote.verdict = verdict;
      return;
    }
  fail(ErrorKind::data,
       "{}: `score` must be 1 (first wins), 2 (second wins), 3 (tie) or -1 (no verdict), not {}", row.where(),
       score.dump());
}

void read(const Row& row, const JudgmentSource& source, std::vector<Vote>& votes) {
  Vote vote;
  vote.item = item_of(row);
  vote.first = source.name->first;
  vote.second = source.name->second;
  vote.judge = source.name->judge;
  auto metadata = row.json().find("metadata");
  if (metadata != row.json().end() && metadata->is_object() && metadata->contains("judge"))
    vote.judge = Row(*metadata, source.path, row.line()).text("judge");
  vote.line = row.line();
  auto score = row.json().find("score");
  QLORA_CHECK(score != row.json().end(), data, "{}: the row has no `score`", row.where());
  if (score->is_array())
    read_points(*score, row, vote);
  else
    read_verdict(*score, row, vote);
  vote.review = row.text_or_empty("review_id");
  vote.first_answer = row.text_or_empty("answer1_id");
  vote.second_answer = row.text_or_empty("answer2_id");
  if (row.has("reviewer_id")) vote.prompt = row.id("reviewer_id");
  // Of a row without a review, `text` is the question.
  if (!vote.review.empty()) vote.raw = row.text_or_empty("text");
  votes.push_back(std::move(vote));
}

OrderedJson number_or_text(const std::string& text) {
  bool number = !text.empty() && text.size() < 16 && (text == "0" || text[0] != '0') &&
                std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return number ? OrderedJson(std::stoll(text)) : OrderedJson(text);
}

OrderedJson row_of(const Vote& vote, bool named_in_file) {
  OrderedJson row;
  if (!vote.review.empty()) row["review_id"] = vote.review;
  OrderedJson item = number_or_text(vote.item);
  row[item.is_number() ? "question_id" : "message_id"] = item;
  if (!vote.review.empty()) {
    row["answer1_id"] = vote.first_answer;
    row["answer2_id"] = vote.second_answer;
    row["reviewer_id"] = number_or_text(vote.prompt);
    row["metadata"] = OrderedJson::object();
    if (!named_in_file) row["metadata"]["judge"] = vote.judge;
    row["text"] = vote.raw;
  }
  if (!vote.points)
    row["score"] = score_of(vote.verdict);
  else if (vote.valid())
    row["score"] = {*vote.first_score, *vote.second_score};
  else
    row["score"] = {-1, -1};
  return row;
}

std::map<std::string, std::string> write(std::span<const Vote> votes) {
  std::map<std::string, std::string> files;
  for (const Vote& vote : votes) {
    QLORA_CHECK(
        vote.pairwise() && vote.order_known && vote.turn == 1 && vote.verdict != Verdict::both_bad, usage,
        "item {} of {} and {}: the QLoRA layout holds verdicts and scores of two answers of one turn in a "
        "known order, nothing else",
        vote.item, vote.first, vote.second);
    std::string name = judgment_file_name({vote.first, vote.second, vote.judge}, !vote.points);
    const bool named = parse_judgment_name(name).judge == vote.judge;
    QLORA_CHECK(named || !vote.review.empty(), usage,
                "judge {}: a vote without a review has no place for such a name; write another layout",
                vote.judge);
    files[name] += row_of(vote, named).dump(-1, ' ', true) + "\n";
  }
  return files;
}

}  // namespace

const JudgmentLayout kQloraLayout = {
    "qlora", "the QLoRA release's verdicts and 10-point scores, and PRD's human votes", true, fits, read,
    write};

}  // namespace qlora
