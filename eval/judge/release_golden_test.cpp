// The QLoRA release's files and PRD's human votes, as they were published; and a tournament of the release's
// other benchmark in the same layout.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "core/base/test_data.h"
#include "eval/judge/answer_ids.h"
#include "eval/judge/judgments.h"
#include "eval/judge/layouts.h"
#include "eval/judge/oa_fixture.h"
#include "eval/judge/reparse.h"

using namespace qlora;

namespace {

Path release() {
  return test::test_data() / "04_qlora_eval";
}

std::vector<JudgmentFile> load(const Path& folder, const AnswerBook* book = nullptr) {
  return load_judgments(std::vector<std::string>{folder.string()}, book);
}

std::map<int, int64_t> scores_of(const std::vector<JudgmentFile>& files) {
  std::map<int, int64_t> counts;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) ++counts[score_of(vote.verdict)];
  return counts;
}

}  // namespace

TEST_CASE("the release's verdicts are read and their names have the order right", "[golden]") {
  Path folder = release() / "ratings-gpt4/vicuna/pairwise";
  if (test::missing(folder)) return;
  std::vector<JudgmentFile> files = load(folder);
  CHECK(files.size() == 56);
  CHECK(scores_of(files) == std::map<int, int64_t>{{1, 2512}, {2, 1355}, {3, 600}, {-1, 13}});
  for (const JudgmentFile& file : files) {
    INFO(file.path);
    CHECK(file.order == OrderSource::answer_ids);
    CHECK_FALSE(file.reversed);
  }
  // Every stored score is what the release's parser makes of the words; later versions recover some.
  ReparseReport one = reparse(files, verdict_parser("threeclass-1"));
  CHECK((one.same == 4467 && one.differs == 0 && one.unread == 0 && one.recovered() == 0));
  std::vector<JudgmentFile> again = files;
  ReparseReport three = reparse(again, verdict_parser("threeclass-3"));
  CHECK((three.same == 4467 && three.differs == 0 && three.recovered() == 3 && three.ties == 3));
  ReparseReport two = reparse(files, verdict_parser("threeclass-2"));
  CHECK((two.same == 4467 && two.differs == 0));
  CHECK((two.invalid_before == 13 && two.recovered() == 3 &&
         two.ties == 3));  // "I choose option 3", and 8 "error"
}

TEST_CASE("the names of 66 of the release's 72 files of points have the wrong order", "[golden]") {
  Path folder = release() / "ratings-gpt4/vicuna/relative-gpt-3.5";
  if (test::missing(folder)) return;
  AnswerBook book;
  book.add(release() / "generations/vicuna/answer_gpt35.jsonl");
  const std::vector<JudgmentFile> alone = load(folder);
  std::vector<JudgmentFile> files = load(folder, &book);
  REQUIRE(files.size() == 72);
  int reversed = 0;
  int64_t rows = 0;
  for (size_t f = 0; f < files.size(); ++f) {
    INFO(files[f].path);
    CHECK(files[f].order == OrderSource::answer_ids);
    CHECK(alone[f].reversed == files[f].reversed);  // what files have in common says as much as the book
    reversed += files[f].reversed;
    rows += static_cast<int64_t>(files[f].votes.size());
    for (const Vote& vote : files[f].votes) {
      const AnswerBook::Answer* answer = book.find("gpt-3.5", vote.item);
      REQUIRE(answer != nullptr);
      CHECK((vote.first == "gpt-3.5" ? vote.first_answer : vote.second_answer) == answer->id);
    }
  }
  CHECK(reversed == 66);
  CHECK(rows == 5760);
  ReparseReport one = reparse(files, verdict_parser("scores-1"));
  // 156 rows were filled in by hand.
  CHECK((one.invalid_before == 60 && one.recovered() == 0 && one.differs + one.unread == 156));
  // The second version recovers all, and reads what was filled in by hand as it was filled in.
  ReparseReport two = reparse(files, verdict_parser("scores-2"));
  CHECK((two.recovered() == 60 && two.same == 5700 && two.differs == 0 && two.unread == 0));
}

TEST_CASE("ids of answers are made as the release makes them", "[golden]") {
  Path folder = release() / "generations/vicuna";
  if (test::missing(folder)) return;
  AnswerBook book;
  for (const char* name : {"7b-guanaco-vicuna-generations-topp0.9-temp0.7.jsonl", "answer_gpt4.jsonl"})
    book.add(folder / name);
  JudgmentFile file = read_judgments(
      release() /
      "ratings-gpt4/vicuna/pairwise/"
      "7b-guanaco-vicuna-generations-topp0.9-temp0.7-vs-answer-gpt4-gpt-4-reviewer-threeclass.jsonl.gz");
  for (const Vote& vote : file.votes) {
    CHECK(book.find("guanaco-7b", vote.item)->id == vote.first_answer);
    CHECK(book.find("gpt-4", vote.item)->id == vote.second_answer);
  }
}

TEST_CASE("human votes keep their three raters", "[golden]") {
  Path folder = release() / "prd_human";
  if (test::missing(folder)) return;
  std::vector<JudgmentFile> files = load(folder);
  CHECK(files.size() == 60);  // four of them about Claude
  std::map<std::string, int64_t> raters;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) ++raters[vote.rater];
  CHECK(raters == std::map<std::string, int64_t>{{"", 320}, {"1", 2240}, {"2", 2240}, {"3", 2240}});
}

TEST_CASE("what is written of the release's files reads back the same", "[golden]") {
  Path folder = release() / "ratings-gpt4/vicuna/pairwise";
  if (test::missing(folder)) return;
  std::vector<JudgmentFile> files = load(folder);
  files.resize(14);
  std::vector<Vote> votes;
  for (const JudgmentFile& file : files) votes.insert(votes.end(), file.votes.begin(), file.votes.end());
  test::TemporaryFolder dir;
  std::map<std::string, const Vote*> by_review;
  for (const Vote& vote : votes) by_review[vote.review] = &vote;
  for (const auto& [name, content] : layout("qlora").write(votes)) write_file(dir.path() / name, content);
  size_t count = 0;
  for (const JudgmentFile& file : load(dir.path()))
    for (const Vote& vote : file.votes) {
      const Vote& was = *by_review.at(vote.review);
      ++count;
      CHECK((vote.first == was.first && vote.second == was.second && vote.verdict == was.verdict));
      CHECK((vote.raw == was.raw && vote.item == was.item && vote.first_answer == was.first_answer));
    }
  CHECK(count == votes.size());
}

TEST_CASE("a tournament of 953 messages and 42 files loads and rates") {
  test::TemporaryFolder dir;
  const test::OaFixture fixture(dir.path());
  std::vector<JudgmentFile> files = load(dir.path());
  CHECK(files.size() == 42);
  Matches matches = gather_matches(files, VoteRule::each);
  CHECK(matches.rows == 40'026);
  CHECK(matches.invalid_rows == fixture.unparsed);
  CHECK(static_cast<int64_t>(matches.matches.size()) == fixture.rows - fixture.unparsed);
  CHECK(std::abs(static_cast<double>(fixture.unparsed) / 40'026 - 0.037) < 0.003);
  CHECK(matches.prompts.size() == 953);
  EloOptions options;
  options.orders = 20;
  EloReport report = rate(matches, options);
  REQUIRE(report.ratings.size() == 7);
  for (size_t s = 0; s < 7; ++s) CHECK(report.ratings[s].system == test::OaFixture::kSystems[s].alias);
  ReparseReport again = reparse(files, verdict_parser("threeclass-2"));
  CHECK((again.recovered() == fixture.recoverable && again.differs == 0));
}
