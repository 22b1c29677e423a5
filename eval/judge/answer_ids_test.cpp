// Who was shown first, by the ids of the answers.
#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/test_data.h"
#include "core/base/test_warnings.h"
#include "eval/judge/answer_ids.h"
#include "eval/judge/judgments.h"

using namespace qlora;
using Catch::Contains;

namespace {

// A file whose rows show `shown_first` first, under the name of `named_first` and `named_second`.
JudgmentFile shown(const std::string& named_first, const std::string& named_second,
                   const std::string& shown_first, int items = 20) {
  JudgmentFile file;
  file.path = named_first + "-vs-" + named_second;
  file.order = OrderSource::name;
  const std::string& other = shown_first == named_first ? named_second : named_first;
  for (int i = 0; i < items; ++i) {
    Vote vote;
    vote.item = std::to_string(i);
    vote.first = named_first;
    vote.second = named_second;
    vote.first_answer = shown_first + std::to_string(i);
    vote.second_answer = other + std::to_string(i);
    vote.verdict = Verdict::first_wins;
    vote.line = i + 1;
    file.votes.push_back(vote);
  }
  return file;
}

}  // namespace

TEST_CASE("the id of an answer is the short form of its UUID") {
  // By Python: uuid5(NAMESPACE_DNS, text), its number in base 57.
  CHECK(answer_id_of("") == "G2XvSSebd6Tc4bHMenwxLy");
  CHECK(answer_id_of("hello") == "UDTaRrnpgsP9VobgyvVfLm");
}

TEST_CASE("names with the wrong order are put right by what files have in common") {
  std::vector<JudgmentFile> files = {shown("ref", "red", "red"), shown("red", "ref", "ref"),
                                     shown("ref", "blue", "ref"), shown("blue", "ref", "ref")};
  orient_by_answer_ids(files);
  for (const JudgmentFile& file : files) {
    INFO(file.path);
    CHECK(file.order == OrderSource::answer_ids);
    for (const Vote& vote : file.votes) CHECK(vote.first_answer == vote.first + vote.item);
  }
  CHECK(files[0].reversed);
  CHECK(files[1].reversed);
  CHECK_FALSE(files[2].reversed);
  CHECK(files[3].reversed);
}

TEST_CASE("a pair of files alone cannot decide the order and keeps its names") {
  std::vector<JudgmentFile> files = {shown("ref", "red", "red"), shown("red", "ref", "ref")};
  orient_by_answer_ids(files);
  CHECK(files[0].order == OrderSource::name);
  CHECK(files[0].votes[0].first == "ref");
}

TEST_CASE("a file that mixes orders is an error with both lines") {
  std::vector<JudgmentFile> files = {shown("ref", "red", "ref"), shown("ref", "blue", "ref")};
  for (size_t i = 5; i < 10; ++i) std::swap(files[0].votes[i].first_answer, files[0].votes[i].second_answer);
  CHECK_THROWS_WITH(orient_by_answer_ids(files),
                    Contains("name in line 1") && Contains("opposite in line 6"));
  // One in ten may be an accident, such as two systems with the same answer.
  files = {shown("ref", "red", "ref"), shown("ref", "blue", "ref")};
  std::swap(files[0].votes[5].first_answer, files[0].votes[5].second_answer);
  orient_by_answer_ids(files);
  CHECK_FALSE(files[0].reversed);
}

TEST_CASE("two answers of one system to one item are warned of once") {
  std::vector<JudgmentFile> files = {shown("ref", "red", "ref"), shown("blue", "red", "blue")};
  test::Warnings warnings;
  warn_of_two_answers(files);
  CHECK(warnings.texts.empty());
  for (size_t i : {3, 7}) files[1].votes[i].second_answer = "another" + std::to_string(i);
  warn_of_two_answers(files);
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Contains("red has two answers to item 3, red3 (ref-vs-red:4) and another3 "
                                         "(blue-vs-red:4), and 1 more like this"));
}

TEST_CASE("a book of answers decides and knows lengths and finds foreign answers") {
  test::TemporaryFolder dir;
  std::string red, blue, green;
  for (int i = 0; i < 3; ++i) {
    red += fmt::format(
        "{{\"question_id\": {0}, \"text\": \"?\", \"prompt\": \"?\", \"generation_truncated\": "
        "\"red says {0}A chat between a curious human and an artificial intelligence\"}}\n",
        i);
    blue += fmt::format("{{\"question_id\": {0}, \"answer_id\": \"blue{0}\", \"text\": \"four\"}}\n", i);
    green += fmt::format(
        "{{\"question_id\": {0}, \"answer_id\": \"green{0}\", \"choices\": [{{\"turns\": "
        "[\"one\", \"two\"]}}]}}\n",
        i);
  }
  write_file(dir.path() / "red.jsonl", red);
  write_file(dir.path() / "answer_blue.jsonl", blue);
  write_file(dir.path() / "green.jsonl", green);
  AnswerBook book;
  for (const char* name : {"red.jsonl", "answer_blue.jsonl", "green.jsonl"}) book.add(dir.path() / name);
  REQUIRE(book.find("red", "1") != nullptr);
  CHECK(book.find("red", "1")->id == answer_id_of("red says 1"));
  CHECK(book.find("green", "2")->text == "one\ntwo");
  CHECK(book.find("red", "9") == nullptr);

  std::vector<JudgmentFile> files = {shown("red", "blue", "blue", 3)};
  for (Vote& vote : files[0].votes) vote.second_answer = answer_id_of("red says " + vote.item);
  orient_by_answer_ids(files, &book);
  CHECK(files[0].reversed);
  CHECK(files[0].votes[0].first == "blue");
  CHECK(files[0].votes[0].first_length == 4);
  CHECK(files[0].votes[0].second_length == 10);

  files = {shown("red", "blue", "blue", 3)};
  files[0].votes[2].first_answer = "green2";
  CHECK_THROWS_WITH(orient_by_answer_ids(files, &book),
                    Contains("red-vs-blue:3: answer green2 to item 2 is of green"));

  // One of ten rows may be about an answer that two systems happen to give.
  for (int rows : {9, 10}) {
    files = {shown("red", "blue", "blue", rows)};
    files[0].votes[2].second_answer = "green2";
    INFO(rows);
    if (rows == 9) {
      CHECK_THROWS_WITH(orient_by_answer_ids(files, &book),
                        Contains("red-vs-blue:3:") && Contains("1 of its 18"));
    } else {
      orient_by_answer_ids(files, &book);
      CHECK(files[0].reversed);
    }
  }

  write_file(dir.path() / "twice.jsonl", blue + blue);
  CHECK_THROWS_WITH(AnswerBook().add(dir.path() / "twice.jsonl"), Contains("twice.jsonl:4: item 0"));
}
