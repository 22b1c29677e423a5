#include "eval/ratings/answer_lengths.h"

#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "core/base/test_data.h"

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
