// Verdicts and points read from judges' words, and parsing again.
#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "eval/judge/reparse.h"
#include "eval/judge/verdict_parser.h"

using namespace qlora;
using Catch::Contains;

namespace {

int score(const char* parser, const std::string& text) {
  return score_of(verdict_parser(parser).parse(text).verdict);
}

}  // namespace

TEST_CASE("the release's parser of verdicts takes the last line alone") {
  CHECK(score("threeclass-1", "Both are good.\n\n3") == 3);
  CHECK(score("threeclass-1", "Both are good.\n 2 \n\n") == 2);
  CHECK(score("threeclass-1", "1") == 1);
  for (const char* text : {"", "error", "\n", "4", "0", "-1", "I choose 1", "1\n\nThanks", "1.", "12"}) {
    INFO(text);
    CHECK(score("threeclass-1", text) == -1);
  }
}

TEST_CASE("the second parser of verdicts reads sentences that say so") {
  struct Case {
    const char* text;
    int score;
  };
  for (const Case& c : std::vector<Case>{
           {"reasons\n2", 2},
           {"Therefore, I choose option 3, as both assistants are equivalent in their coding abilities.", 3},
           {"provided incorrect answers, I choose 3 as both assistants are equivalent in their "
            "incorrectness.",
            3},
           {"Reasons.\n\nBest answer: 2", 2},
           {"Reasons.\n\nThe best answer is the answer of Assistant 2.", 2},
           {"Reasons.\n**1**", 1},
           {"Reasons.\nAssistant 1", 1},
           {"Assistant 1 gave an example. Assistant 2 performed better.", 2},
           {"Assistant 2's answer is better because it is longer.", 2},
           {"Reasons. My final choice is 1.", 1},
           {"The two answers are equivalent.", 3},
           {"Therefore, I cannot choose between Assistant 1 and Assistant 2 as both of their answers are "
            "incorrect.",
            -1},
           {"Assistant 1 is more detailed than Assistant 2.", -1},
           {"error", -1},
           {"", -1},
       }) {
    INFO(c.text);
    CHECK(score("threeclass-2", c.text) == c.score);
  }
}

TEST_CASE("the third parser of verdicts reads more forms of a verdict") {
  struct Case {
    const char* text;
    int score;
  };
  for (const Case& c : std::vector<Case>{
           {"reasons\n2", 2},
           {"Both are fine.\nThe answer is 2", 2},
           {"The answer is 2.", 2},
           {"Reasons.\n\nScore: 1", 1},
           {"Reasons.\n\n**Score:** 3", 3},
           {"Rating: 2", 2},
           {"So my final answer is Assistant 1.", 1},
           {"Final verdict: option 3", 3},
           {"Therefore, Assistant 2 provides the better answer.", 2},
           {"Thus, Assistant 1 gave a better response than Assistant 2.", 1},
           {"Overall, Assistant 2's answer is slightly better.", 2},
           {"The answer from Assistant 1 is better than the answer from Assistant 2.", 1},
           {"Answer 2 is the best.", 2},
           {"Assistant 2 performed better because it gave an example, as Assistant 1 did only once.", 2},
           {"Assistant 1 wins.", 1},
           {"I choose option 3, as both assistants are equivalent in their coding abilities.", 3},
           {"Since both gave wrong results, I choose 3 as both are equivalent.", 3},
           {"Reasons.\n\nBest answer: 2", 2},
           {"The best answer is the answer of Assistant 2.", 2},
           {"The winner is Assistant 1.", 1},
           {"I would choose option 2.", 2},
           {"Based on detail and accuracy, I would rate Assistant 1's answer as superior to Assistant 2's "
            "answer.",
            1},
           {"I would consider Assistant 2's response to be the best of the two.", 2},
           {"Considering all this, Assistant 2's answer is slightly better than Assistant 1's answer.", 2},
           {"Both answers are equally good.", 3},
           {"The two responses are equivalent in quality.", 3},
           {"It is a tie.", 3},
           {"Reasons.\nAssistant 1", 1},
           {"Assistant 2 provides the better answer. It has more detail.", 2},
       }) {
    INFO(c.text);
    CHECK(score("threeclass-3", c.text) == c.score);
  }
}

TEST_CASE("the third parser of verdicts takes nothing for a verdict that is none") {
  for (const char* text : {"Assistant 2 is not better.",
                           "Assistant 2 isn't better than Assistant 1.",
                           "Assistant 1 performed better. But Assistant 2 is not better.",
                           "Neither Assistant 1 nor Assistant 2 provides the better answer.",
                           "Neither is better: 3 mistakes each.",
                           "Assistant 2 is no better than Assistant 1.",
                           "Is Assistant 2 better?",
                           "Which one is better? I cannot say.",
                           "Assistant 1 performed better in style. Therefore, I cannot choose.",
                           "Assistant 2 would be better if it were shorter.",
                           "It is unclear whether Assistant 1 is better.",
                           "Either Assistant 1 or Assistant 2 is better.",
                           "The answer is 2 or 3.",
                           "The answer is 2/3.",
                           "The answer is 2.5.",
                           "The answer is 42.",
                           "The answer is 2 apples.",
                           "The answer is -1.",
                           "The correct answer is 2.",
                           "The answer is not 2.",
                           "Score: 1/10",
                           "Score: 1.5",
                           "Score: 2.3",
                           "Score: 1, 2",
                           "Score: 10",
                           "Score: 1 out of 10",
                           "Score: 2%",
                           "Assistant 1's score: 2",
                           "Assistant 1\nScore: 8\nAssistant 2\nScore: 1",
                           "Assistant 1: 8/10\nAssistant 2: 1/10\nScore: 1",
                           "Assistant 2:\nScore: 1",
                           "x is found by halving. The answer is 4. The answer is 2",
                           "Assistant 2 provides the better introduction.",
                           "Assistant 2 is better at grammar.",
                           "Assistant 1 is better at code and Assistant 2 is better.",
                           "Assistant 2 is better in style, but Assistant 1 is right.",
                           "Assistant 1 is more detailed than Assistant 2.",
                           "Assistant 1 is better than Assistant 1.",
                           "Assistant 2 provides a better answer than Assistant 1 in style only.",
                           "Assistant 3 is better.",
                           "Assistant 3",
                           "1. Assistant 1 is long.\n2. Assistant 2 is short.",
                           "They are equally long.",
                           "Both have two errors.",
                           "The option 1 has an error.",
                           "I choose 2 examples.",
                           "Better 1 than none.",
                           "I would rate Assistant 1's answer higher in terms of detail.",
                           "I would choose Assistant 1 if it had an example.",
                           "I would have rated Assistant 2 as better.",
                           "I would rate Assistant 1 and Assistant 2 as better than most.",
                           "error",
                           "",
                           "...",
                           "s",
                           "The answer is",
                           "Score:",
                           "Assistant",
                           "I choose"}) {
    INFO(text);
    CHECK(score("threeclass-3", text) == -1);
  }
}

TEST_CASE("points are read from the first line or from a pair or from words") {
  auto read = [](const char* parser, const std::string& text) {
    Parsed p = verdict_parser(parser).parse(text);
    return p.first ? fmt::format("{} {}", *p.first, *p.second) : std::string("none");
  };
  CHECK(read("scores-1", "9 6.5\nAssistant 1 ...") == "9 6.5");
  CHECK(read("scores-1", "9,6\nwords") == "9 6");
  for (const char* text :
       {"9 6 5\n", "9\n6", "9, 6\n", "nine six\n", "", "Scores: 9 6\n", "-1 5\n", "nan 5\n"}) {
    INFO(text);
    CHECK(read("scores-1", text) == "none");
  }
  CHECK(read("scores-2", "9 6\nwords (1, 2)") == "9 6");
  CHECK(read("scores-2", "f(2) = 5(2)^3\n\n(10, 1)") == "10 1");
  CHECK(read("scores-2",
             "Assistant 1: 2 (Incorrect)\nAssistant 2: 10 (Correct)\n\nAssistant 2 performed better.") ==
        "2 10");
  CHECK(read("scores-2", "I would give Assistant 1 a score of 4 and Assistant 2 a score of 10.5.") == "none");
  CHECK(read("scores-2", "I would give Assistant 1 a score of 4 and Assistant 2 a score of 10.") == "4 10");
  CHECK(read("scores-2", "From (2, 3) to (10, 4).\nAssistant 1: 10\nAssistant 2: 1\n") == "10 1");
  CHECK(read("scores-2", "Assistant 1: 10\nAssistant 2: 1\nTherefore: (9, 2)") == "9 2");
  CHECK(read("scores-2", "Assistant 2: 10/10 (correct)") == "none");
  CHECK(score("scores-2", "(8, 8)") == 3);
  CHECK(score("fastchat-1", "I think [[B]]") == 2);
  CHECK(score("fastchat-1", "[[C]] it is") == 3);
  CHECK(score("fastchat-1", "[[A]] or [[B]]") == -1);
  CHECK(score("fastchat-1", "[A]") == -1);
}

TEST_CASE("a later version reads what the first reads and no parser fails on any text") {
  std::vector<std::string> texts = {
      "",    "\n\n", "((((", "(1,",   "[[",        "assistant 1: ",      "a score of",
      "1 2", "3",    " 2\n", "9 9\n", "10 0.5\nx", std::string(1, '\0'), "\xff\xfe 1"};
  for (const VerdictParser& parser : verdict_parsers())
    for (const std::string& text : texts) parser.parse(text);
  for (auto [one, two] : {std::pair{"threeclass-1", "threeclass-2"},
                          std::pair{"threeclass-1", "threeclass-3"}, std::pair{"scores-1", "scores-2"}})
    for (const std::string& text : texts) {
      Parsed first = verdict_parser(one).parse(text), second = verdict_parser(two).parse(text);
      if (first.verdict == Verdict::invalid) continue;
      CHECK(second.verdict == first.verdict);
      CHECK(second.first == first.first);
    }
  CHECK_THROWS_WITH(verdict_parser("threeclas-2"), Contains("did you mean `threeclass-"));
}

TEST_CASE("parsing again changes only what had no verdict and counts the rest") {
  JudgmentFile file;
  for (auto [verdict, raw] :
       std::vector<std::pair<Verdict, std::string>>{{Verdict::first_wins, "so\n1"},
                                                    {Verdict::first_wins, "so\n2"},
                                                    {Verdict::first_wins, "unclear"},
                                                    {Verdict::invalid, "I choose option 2."},
                                                    {Verdict::invalid, "unclear"},
                                                    {Verdict::invalid, ""}}) {
    Vote vote;
    vote.first = "red";
    vote.second = "blue";
    vote.judge = "gpt-4";
    vote.verdict = verdict;
    vote.raw = raw;
    file.votes.push_back(vote);
  }
  std::vector<JudgmentFile> files = {file};
  ReparseReport report = reparse(files, verdict_parser("threeclass-2"));
  CHECK((report.votes == 6 && report.invalid_before == 3 && report.invalid_after == 2 &&
         report.recovered() == 1));
  CHECK((report.first == 0 && report.second == 1 && report.ties == 0 && report.without_text == 1));
  CHECK((report.same == 1 && report.differs == 1 && report.unread == 1));
  CHECK(report.by_system["blue"] == std::pair<int64_t, int64_t>{3, 2});
  CHECK(files[0].votes[1].verdict == Verdict::first_wins);
  CHECK(files[0].votes[3].verdict == Verdict::second_wins);
  CHECK_THROWS_WITH(reparse(files, verdict_parser("scores-2")), Contains("points of two answers"));
  CHECK(parser_for(files).name == "threeclass-3");
  for (Vote& vote : files[0].votes) vote.raw = "So it is [[A]].";
  CHECK(parser_for(files).name == "fastchat-1");
  for (Vote& vote : files[0].votes) vote.raw = "no words of any parser";
  CHECK(parser_for(files).name == "threeclass-3");
}
