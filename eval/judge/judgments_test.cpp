#include <zlib.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"
#include "core/base/test_warnings.h"
#include "eval/judge/judgments.h"

using namespace qlora;
using Catch::Contains;
using test::message_of;

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
           {"lora-8-e110-q-generations-topp0.9-temp0.7-vs-model-my_set-generations-greedy-rep1.1-gpt-4-"
            "reviewer.jsonl",
            "lora-8-e110", "model", "gpt-4"},
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
    CHECK_THAT(message_of(ErrorKind::data, [&] { parse_judgment_name(bad); }), Contains(bad));
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
  REQUIRE(file.votes.size() == 3);
  CHECK(file.votes[0].item == "7");
  CHECK(file.votes[0].first == "red");
  CHECK(file.votes[0].second == "blue");
  CHECK(file.votes[0].judge == "gpt-4");
  CHECK(file.votes[0].rater == "1");
  CHECK(file.votes[1].item == "abc");
  CHECK(file.votes[1].verdict == Verdict::invalid);
  CHECK(file.votes[1].rater == "");
  CHECK(file.votes[2].line == 4);
  CHECK(file.votes[2].rater == "2");
  CHECK(file.content == sha256(content));
  CHECK(file.layout == "qlora");

  Path packed = dir.path() / "red-vs-blue-human-reviewer_threeclass.jsonl.gz";
  gzFile gz = gzopen(packed.c_str(), "wb");
  gzwrite(gz, content.data(), static_cast<unsigned>(content.size()));
  gzclose(gz);
  CHECK(read_judgments(packed).votes.size() == 3);
  CHECK(read_judgments(packed).content == file.content);
  CHECK(read_judgments(packed).votes[0].judge == "human");
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
                                         {"{\"question_id\": 8, \"score\": [8, 7.5]}", "in one file"},
                                         {"{\"question_id\": 8, \"score\": [8]}", "two scores"},
                                         {"{\"question_id\": 8, \"score\": [8, null]}", "finite number"},
                                         {"{\"question_id\": 8, \"score\": NaN}", "finite number"},
                                         {"{\"question_id\": 8, \"score\": [-1, 3]}", "negative"},
                                         {"{\"question_id\": 8,", "not valid JSON"},
                                         {"[1]", "JSON object"}}) {
    INFO(c.row);
    write_file(path, good + c.row + "\n" + good);
    CHECK_THAT(message_of(ErrorKind::data, [&] { read_judgments(path); }),
               Contains("threeclass.jsonl:2") && Contains(c.says));
  }
}

TEST_CASE("a cut last line and a review that stands twice are errors with their line") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "red-vs-blue-gpt-4-reviewer-threeclass.jsonl";
  write_file(path, "{\"question_id\": 7, \"score\": 1}\n{\"question_id\": 8, \"sco");
  CHECK_THAT(message_of(ErrorKind::data, [&] { read_judgments(path); }),
             Contains("threeclass.jsonl:2: the last line is cut off"));
  std::string row = "{\"question_id\": 7, \"review_id\": \"x\", \"score\": 1}\n";
  write_file(path, row + "\n" + row);
  CHECK_THAT(message_of(ErrorKind::data, [&] { read_judgments(path); }),
             Contains("threeclass.jsonl:3: review x stands in line 1 already"));
  write_file(path, row + "{\"question_id\": 7, \"review_id\": \"y\", \"score\": 2}\n");
  const std::vector<std::string> one = {path.string()};
  CHECK_THAT(message_of(ErrorKind::data, [&] { load_judgments(one); }),
             Contains("threeclass.jsonl:2: gpt-4 judges red (shown first) and blue on item 7 a second time, "
                      "after line 1"));
}

TEST_CASE("two files that claim the same votes are refused with both lines") {
  test::TemporaryFolder dir;
  Path one = dir.path() / "red-vs-blue-gpt-4-reviewer-threeclass.jsonl";
  Path two = dir.path() / "red_vs_blue_gpt-4_reviewer_threeclass.jsonl";
  Path back = dir.path() / "blue-vs-red-gpt-4-reviewer-threeclass.jsonl";
  write_file(one, "{\"question_id\": 6, \"score\": 1}\n{\"question_id\": 7, \"score\": 1}\n");
  write_file(back, "{\"question_id\": 7, \"score\": 1}\n");
  std::vector<std::string> folder = {dir.path().string()};
  CHECK(load_judgments(folder).size() == 2);  // the other order is another vote
  write_file(two, "\n{\"question_id\": 7, \"score\": 2}\n");
  CHECK_THAT(message_of(ErrorKind::data, [&] { load_judgments(folder); }),
             Contains(two.string() + ":2: gpt-4 judges red") && Contains(one.string() + ":2 does already"));
  // Another item is no claim on the same vote.
  write_file(two, "{\"question_id\": 8, \"score\": 2}\n");
  CHECK(load_judgments(folder).size() == 3);
}

namespace {

JudgmentFile file_of(const std::string& first, const std::string& second,
                     std::vector<std::pair<std::string, Verdict>> verdicts) {
  JudgmentFile file;
  for (const auto& [item, verdict] : verdicts) {
    Vote vote;
    vote.item = item;
    vote.first = first;
    vote.second = second;
    vote.judge = "x";
    vote.verdict = verdict;
    file.votes.push_back(vote);
  }
  return file;
}

constexpr Verdict kFirst = Verdict::first_wins, kSecond = Verdict::second_wins, kTie = Verdict::tie,
                  kNone = Verdict::invalid;

}  // namespace

TEST_CASE("votes become matches one by one or by majority") {
  std::vector<std::pair<std::string, Verdict>> votes;
  for (Verdict v : {kFirst, kFirst, kSecond}) votes.emplace_back("two of three", v);
  for (Verdict v : {kFirst, kSecond, kTie}) votes.emplace_back("all different", v);
  for (Verdict v : {kSecond, kSecond, kNone}) votes.emplace_back("one invalid", v);
  for (Verdict v : {kNone, kNone, kNone}) votes.emplace_back("none valid", v);
  for (Verdict v : {kTie, Verdict::both_bad, kFirst}) votes.emplace_back("tied", v);
  std::vector<JudgmentFile> files = {file_of("red", "blue", votes)};

  Matches each = gather_matches(files, VoteRule::each);
  CHECK(each.matches.size() == 11);
  CHECK(each.rows == 15);
  CHECK(each.invalid_rows == 4);
  CHECK(each.invalid == std::vector<int64_t>{4, 4});
  CHECK(each.judges == std::vector<std::string>{"x"});

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

TEST_CASE("matches carry the order and the lengths of the answers") {
  std::vector<JudgmentFile> files = {file_of("red", "blue", {{"1", kFirst}, {"2", kTie}})};
  files[0].votes[0].order_known = false;
  files[0].votes[0].first_length = 30;
  files[0].votes[0].second_length = 10;
  Matches matches = gather_matches(files, VoteRule::each);
  CHECK_FALSE(matches.matches[0].order_known);
  CHECK(matches.matches[0].length == 0.5F);
  CHECK(matches.matches[1].order_known);
  CHECK(matches.matches[1].length == 0.0F);
}

TEST_CASE("matches can be restricted to some systems") {
  std::vector<JudgmentFile> files = {file_of("red", "blue", {{"1", kFirst}, {"2", kSecond}}),
                                     file_of("blue", "gpt-4", {{"1", kFirst}, {"2", kSecond}}),
                                     file_of("red", "gpt-4", {{"1", kFirst}, {"2", kSecond}})};
  CHECK(gather_matches(files, VoteRule::each).matches.size() == 6);
  Matches some = gather_matches(files, VoteRule::each, std::vector<std::string>{"red", "answer_gpt4"});
  CHECK(some.matches.size() == 2);
  CHECK(some.systems == std::vector<std::string>{"red", "gpt-4"});
  CHECK(only_between(files, std::vector<std::string>{"red", "gpt-4"}).size() == 1);
  files[0].path = "red-vs-blue";
  files[0].votes[0].line = 7;
  const std::vector<std::string> wrong = {"bleu"}, strange = {"yellow"};
  CHECK_THROWS_WITH(gather_matches(files, VoteRule::each, wrong, "--systems"),
                    "--systems: unknown system `bleu`; did you mean `blue` (red-vs-blue:7)?");
  CHECK_THROWS_WITH(only_between(files, strange),
                    "unknown system `yellow`; known: blue (red-vs-blue:7), gpt-4 (:0), red (red-vs-blue:7)");
  CHECK_THROWS_WITH(
      gather_matches(files, VoteRule::each, std::vector<std::string>{"red"}),
      Contains("red-vs-blue and 2 other files: none of 6 votes") && Contains("between two of red"));
  for (JudgmentFile& file : files)
    for (Vote& vote : file.votes) vote.second.clear();
  CHECK_THROWS_WITH(gather_matches(files, VoteRule::each),
                    Contains("6 scores of single answers") && Contains("elo relative"));
  for (JudgmentFile& file : files) file.votes.clear();
  CHECK_THROWS_WITH(gather_matches(files, VoteRule::each),
                    "red-vs-blue and 2 other files: no judgment to read; is nothing missing?");
}

TEST_CASE("votes can be restricted to one judge") {
  std::vector<JudgmentFile> files = {file_of("red", "blue", {{"1", kFirst}, {"2", kSecond}}),
                                     file_of("blue", "gpt-4", {{"1", kFirst}})};
  files[0].votes[1].judge = files[1].votes[0].judge = "another";
  const std::vector<JudgmentFile> some = only_by(files, files[0].votes[0].judge);
  REQUIRE(some.size() == 1);
  CHECK(some[0].votes.size() == 1);
  CHECK(only_by(files, "another").size() == 2);
  CHECK_THROWS_WITH(only_by(files, "anoter"), "unknown judge `anoter`; did you mean `another`?");
}

TEST_CASE("judgment files are found in folders and by patterns") {
  test::TemporaryFolder dir;
  for (const char* name : {"b-vs-a-x-reviewer-threeclass.jsonl", "a-vs-b-x-reviewer-threeclass.jsonl.gz",
                           "a_vs_c_x_reviewer_threeclass.jsonl", "questions.jsonl", "README.md",
                           "gpt-4_pair.jsonl", "annotations.json", "clean_battle_20230814.json"})
    write_file(dir.path() / name, "");
  const std::string vote = R"({"question_id": 1, "text": "?", "score": 1})";
  write_file(dir.path() / "mine.jsonl", vote + "\nand no more");
  write_file(dir.path() / "all.json", "[" + vote + "]");
  write_file(dir.path() / "prompts.jsonl", "{\"question_id\": 1}\n");
  std::string folder = dir.path().string();
  auto find = [](std::vector<std::string> what) { return find_judgment_files(what); };
  test::Warnings warnings;
  std::vector<Path> all = find({folder});
  REQUIRE(all.size() == 6);
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0],
             Contains(folder + ": 2 files of judgments") && Contains("(all.json, mine.jsonl)"));
  CHECK(std::is_sorted(all.begin(), all.end()));
  CHECK(find({folder + "/a*.jsonl*", folder}).size() == 6);  // none twice
  CHECK(find({folder + "/*.gz"}).size() == 1);
  CHECK(find({all[0].string()}) == std::vector<Path>{all[0]});
  for (const char* bad : {"/none*", "/none.jsonl"})
    CHECK_THAT(message_of(ErrorKind::data, [&] { find({folder + bad}); }),
               Contains(folder + bad) && Contains("no such file"));
  std::filesystem::create_directories(dir.path() / "inside/pairwise");
  write_file(dir.path() / "inside/votes.jsonl", "");
  CHECK_THAT(message_of(ErrorKind::data, [&] { find({folder + "/inside"}); }),
             Contains("no judgment file here") && Contains("_single") && Contains("(votes.jsonl)") &&
                 Contains("not searched (pairwise/)"));
}
