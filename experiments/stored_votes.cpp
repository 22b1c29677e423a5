#include "experiments/stored_votes.h"

#include <filesystem>

#include "core/base/check.h"

namespace qlora {

namespace {

Verdict verdict_of_score(int score) {
  for (Verdict verdict : {Verdict::first_wins, Verdict::second_wins, Verdict::tie, Verdict::both_bad})
    if (score_of(verdict) == score) return verdict;
  return Verdict::invalid;
}

}  // namespace

VoteFile vote_file(const JudgmentFile& file) {
  // The store is read from other folders too, and two spellings of a path are one file.
  VoteFile out{std::filesystem::absolute(file.path).lexically_normal().string(), file.content, {}};
  for (const Vote& vote : file.votes) {
    VoteRow row;
    row.judge = vote.judge;
    row.item = vote.item;
    row.turn = vote.turn;
    row.system_a = vote.first;
    row.system_b = vote.second;
    row.shown_first = vote.order_known ? 'a' : '?';
    row.rater = vote.rater;
    row.prompt = vote.prompt;
    row.score = score_of(vote.verdict);
    row.points = vote.points;
    row.score_a = vote.first_score;
    row.score_b = vote.second_score;
    row.answer_a = vote.first_answer;
    row.answer_b = vote.second_answer;
    row.length_a = vote.first_length;
    row.length_b = vote.second_length;
    row.review = vote.review;
    row.raw = vote.raw;
    row.line = vote.line;
    row.part = vote.part;
    out.votes.push_back(std::move(row));
  }
  return out;
}

JudgmentFile judgment_file(const VoteFile& file) {
  JudgmentFile out;
  out.path = file.path;
  out.content = file.content;
  for (const VoteRow& row : file.votes) {
    Vote vote;
    vote.judge = row.judge;
    vote.item = row.item;
    vote.turn = row.turn;
    vote.first = row.shown_first == 'b' ? row.system_b : row.system_a;
    vote.second = row.shown_first == 'b' ? row.system_a : row.system_b;
    vote.order_known = row.shown_first != '?';
    vote.rater = row.rater;
    vote.prompt = row.prompt;
    vote.verdict = verdict_of_score(row.score);
    vote.points = row.points;
    vote.first_score = row.score_a;
    vote.second_score = row.score_b;
    vote.first_answer = row.answer_a;
    vote.second_answer = row.answer_b;
    vote.first_length = row.length_a;
    vote.second_length = row.length_b;
    vote.review = row.review;
    vote.raw = row.raw;
    vote.line = static_cast<int>(row.line);
    vote.part = row.part;
    out.votes.push_back(std::move(vote));
  }
  return out;
}

}  // namespace qlora
