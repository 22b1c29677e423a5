#include <zlib.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <map>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "eval/judge/judgments.h"

using namespace qlora;
using Catch::Contains;

namespace {

std::string kind_and_message(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return fmt::format("{}: {}", e.exit_code(), e.what());
  }
  return "no error";
}

}  // namespace

TEST_CASE("the names of judgment files are taken apart") {
  struct Case {
    const char *file, *first, *second, *judge;
  };
  for (const Case& c : std::vector<Case>{
           {"13b-guanaco-vicuna-generations-topp0.9-temp0.7-vs-answer-gpt4-gpt-4-reviewer-threeclass.jsonl."
            "gz",
            "guanaco-13b", "gpt-4", "gpt-4"},
           {"answer-vicuna-13b-vs-30b-guanaco-vicuna-generations-topp0.9-temp0.7-gpt-4-reviewer-threeclass."
            "jsonl",
            "vicuna-13b", "guanaco-33b", "gpt-4"},
           {"answer_gpt35-vs-answer_guanaco-33b-human-reviewer_threeclass.jsonl", "gpt-3.5", "guanaco-33b",
            "human"},
           {"answer_bard-vs-answer_claude-gpt35-reviewer_threeclass.jsonl.gz", "bard", "claude", "gpt-3.5"},
           {"gpt-3.5-oa-generations-vs-65b-guanaco-oa-generations-topp0.9-temp0.7-gpt-4-reviewer-threeclass."
            "jsonl",
            "gpt-3.5", "guanaco-65b", "gpt-4"},
           {"vicuna-13b-oa-generations-vs-gpt-4-oa-generations-gpt-4-reviewer-threeclass.jsonl", "vicuna-13b",
            "gpt-4", "gpt-4"},
           {"7b-hh-rlhf-vicuna-generations-topp0.9-temp0.7-vs-gpt-3.5-gpt4-reviewer.jsonl", "hh-rlhf-7b",
            "gpt-3.5", "gpt-4"},
           {"13-self-instruct-vicuna-generations-topp0.9-temp0.7-secondround-vs-bard-gpt4-reviewer.jsonl",
            "self-instruct-13b-secondround", "bard", "gpt-4"},
           {"30b-huggingchat-vicuna-generations-topp0.9-temp0.7-vs-gpt4-gpt4-reviewer.jsonl",
            "huggingchat-33b", "gpt-4", "gpt-4"},
           {"mine_vs_theirs_gpt-4_reviewer_threeclass.jsonl", "mine", "theirs", "gpt-4"},
           {"my-model-v2-vs-base-rules-reviewer-threeclass.jsonl", "my-model-v2", "base", "rules"},
       }) {
    INFO(c.file);
    JudgmentName name = parse_judgment_name(c.file);
    CHECK(name.first == c.first);
    CHECK(name.second == c.second);
    CHECK(name.judge == c.judge);
  }
  for (const char* bad :
       {"answers.jsonl", "a-vs-b.jsonl", "a-b-gpt-4-reviewer-threeclass.jsonl",
        "a-vs-b-gpt-4-reviewer-threeclass.json", "-vs-b-gpt-4-reviewer-threeclass.jsonl",
        "a-vs-gpt-4-reviewer-threeclass.jsonl", "gpt4-vs-answer_gpt4-gpt-4-reviewer-threeclass.jsonl"}) {
    INFO(bad);
    CHECK_THAT(kind_and_message([&] { parse_judgment_name(bad); }),
               Catch::StartsWith("3: ") && Contains(bad));
  }
}

TEST_CASE("judgments are read with their lines") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "red-vs-blue-gpt-4-reviewer-threeclass.jsonl";
  std::string content =
      "{\"question_id\": 7, \"score\": 1}\n\n{\"message_id\": \"abc\", \"score\": -1, \"text\": \"?\"}\r\n"
      "{\"question_id\": 7, \"score\": 3}";
  write_file(path, content);
  JudgmentFile file = read_judgments(path);
  REQUIRE(file.rows.size() == 3);
  CHECK(file.rows[0].item == "7");
  CHECK(file.rows[1].item == "abc");
  CHECK(file.rows[1].score == -1);
  CHECK(file.rows[2].line == 4);
  CHECK(file.content == sha256(content));

  Path packed = dir.path() / "red-vs-blue-human-reviewer_threeclass.jsonl.gz";
  gzFile gz = gzopen(packed.c_str(), "wb");
  gzwrite(gz, content.data(), static_cast<unsigned>(content.size()));
  gzclose(gz);
  CHECK(read_judgments(packed).rows.size() == 3);
  CHECK(read_judgments(packed).content == file.content);
  CHECK(read_judgments(packed).name.judge == "human");
}

TEST_CASE("a bad judgment is reported with file and line") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "red-vs-blue-gpt-4-reviewer-threeclass.jsonl";
  std::string good = "{\"question_id\": 7, \"score\": 1}\n";
  struct Case {
    const char *row, *says;
  };
  for (const Case& c : std::vector<Case>{{"{\"question_id\": 8}", "no `score`"},
                                         {"{\"score\": 1}", "no `question_id`"},
                                         {"{\"question_id\": 8, \"score\": 0}", "not 0"},
                                         {"{\"question_id\": 8, \"score\": \"1\"}", "not \"1\""},
                                         {"{\"question_id\": 8, \"score\": [8, 7.5]}", "10-point"},
                                         {"{\"question_id\": 8,", "not valid JSON"},
                                         {"[1]", "JSON object"}}) {
    INFO(c.row);
    write_file(path, good + c.row + "\n" + good);
    CHECK_THAT(kind_and_message([&] { read_judgments(path); }),
               Catch::StartsWith("3: ") && Contains("threeclass.jsonl:2") && Contains(c.says));
  }
}

TEST_CASE("votes become matches one by one or by majority") {
  JudgmentFile file;
  file.name = {"red", "blue", "human"};
  for (int score : {1, 1, 2}) file.rows.push_back({"two of three", score, 0});
  for (int score : {1, 2, 3}) file.rows.push_back({"all different", score, 0});
  for (int score : {2, 2, -1}) file.rows.push_back({"one invalid", score, 0});
  for (int score : {-1, -1, -1}) file.rows.push_back({"none valid", score, 0});
  for (int score : {3, 3, 1}) file.rows.push_back({"tied", score, 0});
  std::vector<JudgmentFile> files = {file};

  Matches each = gather_matches(files, VoteRule::each);
  CHECK(each.matches.size() == 11);
  CHECK(each.rows == 15);
  CHECK(each.invalid_rows == 4);
  CHECK(each.invalid == std::vector<int64_t>{4, 4});

  Matches majority = gather_matches(files, VoteRule::majority);
  std::map<std::string, Outcome> outcomes;
  for (const Match& m : majority.matches)
    outcomes[majority.prompts[static_cast<size_t>(m.prompt)]] = m.outcome;
  CHECK(outcomes == std::map<std::string, Outcome>{{"two of three", Outcome::first_wins},
                                                   {"all different", Outcome::tie},
                                                   {"one invalid", Outcome::second_wins},
                                                   {"tied", Outcome::tie}});
  CHECK(vote_rule_from("majority") == VoteRule::majority);
  CHECK_THROWS_WITH(vote_rule_from("majorty"), Contains("did you mean `majority`"));
}

TEST_CASE("matches can be restricted to some systems") {
  std::vector<JudgmentFile> files(3);
  files[0].name = {"red", "blue", "x"};
  files[1].name = {"blue", "gpt-4", "x"};
  files[2].name = {"red", "gpt-4", "x"};
  for (JudgmentFile& file : files) file.rows = {{"1", 1, 1}, {"2", 2, 2}};
  CHECK(gather_matches(files, VoteRule::each).matches.size() == 6);
  Matches some = gather_matches(files, VoteRule::each, std::vector<std::string>{"red", "answer_gpt4"});
  CHECK(some.matches.size() == 2);
  CHECK(some.systems == std::vector<std::string>{"red", "gpt-4"});
  CHECK_THROWS_WITH(gather_matches(files, VoteRule::each, std::vector<std::string>{"bleu"}),
                    Contains("did you mean `blue`"));
  CHECK_THROWS_WITH(gather_matches(files, VoteRule::each, std::vector<std::string>{"red"}),
                    Contains("no valid judgment"));
}

TEST_CASE("judgment files are found in folders and by patterns") {
  test::TemporaryFolder dir;
  for (const char* name : {"b-vs-a-x-reviewer-threeclass.jsonl", "a-vs-b-x-reviewer-threeclass.jsonl.gz",
                           "a_vs_c_x_reviewer_threeclass.jsonl", "questions.jsonl", "README.md"})
    write_file(dir.path() / name, "");
  std::string folder = dir.path().string();
  auto find = [](std::vector<std::string> what) { return find_judgment_files(what); };
  std::vector<Path> all = find({folder});
  REQUIRE(all.size() == 3);
  CHECK(std::is_sorted(all.begin(), all.end()));
  CHECK(find({folder + "/a*.jsonl*", folder}).size() == 3);  // none twice
  CHECK(find({folder + "/*.gz"}).size() == 1);
  CHECK(find({all[0].string()}) == std::vector<Path>{all[0]});
  for (const char* bad : {"/none*", "/none.jsonl"})
    CHECK_THAT(kind_and_message([&] { find({folder + bad}); }), Catch::StartsWith("3: "));
}
