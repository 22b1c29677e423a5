// Votes that are stored and parsed again, without the program.
#include "experiments/judging.h"

#include <catch2/catch.hpp>

#include "core/base/test_data.h"
#include "core/base/test_warnings.h"

using namespace qlora;
using Catch::Contains;

namespace {

struct Folder {
  test::TemporaryFolder dir;
  VoteSource source(const std::string& file) const {
    VoteSource votes;
    if (!file.empty()) votes.files = {(dir.path() / file).string()};
    votes.db = (dir.path() / "results.db").string();
    return votes;
  }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((dir.path() / name).parent_path());
    write_file(dir.path() / name, text);
  }
};

std::string verdict(const std::string& first_answer, const std::string& second_answer) {
  return fmt::format(
      "{{\"review_id\": \"r-{0}-{1}\", \"question_id\": 7, \"answer1_id\": \"{0}\", \"answer2_id\": \"{1}\", "
      "\"reviewer_id\": 1, \"metadata\": {{}}, \"text\": \"so\\n1\", \"score\": 1}}\n",
      first_answer, second_answer);
}

}  // namespace

TEST_CASE("two systems of one name are warned of when their votes are imported") {
  const Folder folder;
  folder.write("one/run-vs-blue-gpt-4-reviewer-threeclass.jsonl", verdict("mine", "b"));
  folder.write("same/run-vs-green-gpt-4-reviewer-threeclass.jsonl", verdict("mine", "g"));
  folder.write("two/run-vs-red-gpt-4-reviewer-threeclass.jsonl", verdict("theirs", "r"));
  test::Warnings warnings;
  import_votes(folder.source("one"));
  import_votes(folder.source("same"));
  CHECK(warnings.texts.empty());
  CHECK(import_votes(folder.source("two")).new_files == 1);
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Contains("run has two answers to item 7, mine") && Contains("and theirs") &&
                                    Contains("two/run-vs-red") && Contains("two systems of one name"));
}

TEST_CASE("votes are parsed again by the parser that reads the most of them") {
  const Folder folder;
  folder.write(
      "gpt-4_pair.jsonl",
      R"({"question_id": 1, "model_1": "red", "model_2": "blue", "g1_winner": "error", "g2_winner": )"
      R"("tie", "judge": ["gpt-4", "pair"], "g1_judgment": "So [[A]].", "g2_judgment": "[[C]]"})"
      "\n");
  const ReparseReport of_file = reparse_votes(folder.source("gpt-4_pair.jsonl"), "", {});
  CHECK(of_file.parser == "fastchat-1");
  CHECK((of_file.recovered() == 1 && of_file.same == 1));
  import_votes(folder.source("gpt-4_pair.jsonl"));
  CHECK(reparse_votes(folder.source(""), "", {}).parser == "fastchat-1");
  VoteSource reading = folder.source("");
  reading.parser = "fastchat-1";
  CHECK(load_votes(reading).files.at(0).votes.at(0).valid());
}
