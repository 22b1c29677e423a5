#include "eval/ratings/answer_lengths.h"

#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "eval/judge/alpaca_eval_outputs.h"
#include "eval/judge/answer_ids.h"
#include "eval/judge/judge_prompts.h"
#include "eval/judge/judgments.h"

using namespace qlora;
using Catch::Contains;

TEST_CASE("lengths of answers are read from every layout") {
  test::TemporaryFolder folder;
  write_file(folder.path() / "answer_red.jsonl",
             "{\"question_id\": 1, \"text\": \"abcdefé\"}\n\n{\"question_id\": \"2\", \"text\": \"\"}\n");
  write_file(folder.path() / "blue.jsonl",
             "{\"question_id\": 1, \"text\": \"the question\", \"generation\": \"abc\"}\n"
             "{\"question_id\": 2, \"choices\": [{\"turns\": [\"\", \"\"]}]}\n");
  write_file(folder.path() / "other.jsonl", "not JSON, but nobody asks for it\n");
  Matches all;
  all.systems = {"red", "blue"};
  all.prompts = {"1", "2"};
  all.matches = {{0, 1, Outcome::tie, 0}, {1, 0, Outcome::tie, 0}, {1, 0, Outcome::tie, 1}};
  std::vector<Path> files = find_answer_files(folder.path().string());
  CHECK(files.size() == 3);
  add_answer_lengths(all, files);
  CHECK(all.matches[0].length == Approx((7.0 - 3) / 10));
  CHECK(all.matches[1].length == Approx(-0.4));
  CHECK(all.matches[2].length == 0);  // two empty answers

  all.prompts = {"1", "3"};
  CHECK_THROWS_WITH(add_answer_lengths(all, files), Contains("no answer of blue to prompt 3"));
  CHECK_THROWS_WITH(find_answer_files((folder.path() / "no*.jsonl").string()),
                    Contains("no file of answers"));
  CHECK(find_answer_files((folder.path() / "b*.jsonl").string()).size() == 1);
  write_file(folder.path() / "blue.jsonl", "{\"question_id\": 1}\n");
  CHECK_THROWS_WITH(add_answer_lengths(all, files), Contains("blue.jsonl:1") && Contains("generation"));
  write_file(folder.path() / "blue.jsonl",
             "{\"question_id\": 1, \"text\": \"a\"}\n{\"question_id\": 1, \"text\": \"ab\"}\n");
  CHECK_THROWS_WITH(add_answer_lengths(all, files), Contains("blue.jsonl:2") && Contains("second answer"));
}

TEST_CASE("lengths of AlpacaEval's answers are those of its outputs files and of its annotations") {
  const Path fixtures = Path(test::source_folder()) / "eval/judge/fixtures";
  const std::vector<std::string> votes = {(fixtures / "annotations.json").string()};
  auto lengths_by = [&](const std::vector<Path>& answers) {
    Matches all = gather_matches(load_judgments(votes), VoteRule::each);
    for (Match& m : all.matches) m.length = 0;
    add_answer_lengths(all, answers);
    std::vector<float> lengths;
    for (const Match& m : all.matches) lengths.push_back(m.length);
    return lengths;
  };
  // "5" beside "Six, I think.", and "Goddag, verden." beside "Hallo!".
  const std::vector<float> expected = {-12.0F / 14, 9.0F / 21};
  const std::vector<Path> outputs = find_answer_files((fixtures / "*_outputs.json").string());
  REQUIRE(outputs.size() == 2);
  CHECK(lengths_by(outputs) == expected);
  CHECK(lengths_by({fixtures / "annotations.json"}) == expected);

  test::TemporaryFolder folder;
  const Path red = folder.path() / "model_outputs.json";
  write_file(red, "[{\"instruction\": \"What is 2 + 3?\", \"output\": \"5\"}]");
  CHECK_THROWS_WITH(lengths_by({red}), Contains("model_outputs.json:1: the row has no `generator`"));
  write_file(red, "[\n{\"instruction\": \"What is 2 + 3?\", \"generator\": \"red\", \"output\": 5}]");
  CHECK_THROWS_WITH(lengths_by({red}), Contains("model_outputs.json:2: `output` must be text"));
  CHECK_THROWS_WITH(lengths_by({outputs[0]}), Contains("no answer of blue"));
  CHECK(find_answer_files(folder.path().string()) == std::vector<Path>{red});
}

TEST_CASE("lengths of AlpacaEval's own questions are read for three models", "[golden]") {
  const Path folder = test::test_data() / "04_qlora_eval/alpaca_eval";
  if (test::missing(folder)) return;
  Matches all;
  all.systems = {"text_davinci_003", "guanaco-65b"};
  all.prompts = {item_of_words("How did US states get their names?")};
  all.matches = {{0, 1, Outcome::tie, 0}};
  const std::vector<Path> files = {folder / "alpaca_eval.jsonl", folder / "guanaco-65b/model_outputs.json.gz",
                                   folder / "guanaco-7b/model_outputs.json.gz"};
  add_answer_lengths(all, files);
  CHECK(all.matches[0].length == Approx((544.0 - 4295) / (544 + 4295)));
  AnswerBook book;
  CHECK(book.add(files[2]) == "guanaco-7b");
  CHECK(book.add(files[0]) == "text_davinci_003");
  CHECK(read_judge_questions(files[0]).size() == 805);
}
