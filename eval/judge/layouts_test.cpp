// Every layout of judgment files: what it reads, what it refuses, and that it reads back what it writes.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"
#include "core/base/test_warnings.h"
#include "eval/judge/judgments.h"
#include "eval/judge/layouts.h"

using namespace qlora;
using Catch::Contains;

namespace {

std::vector<Vote> read_text(const std::string& name, const std::string& content) {
  test::TemporaryFolder dir;
  write_file(dir.path() / name, content);
  return read_judgments(dir.path() / name).votes;
}

std::string complaint(const std::string& name, const std::string& content) {
  return test::message_of(ErrorKind::data, [&] { read_text(name, content); });
}

const std::string kPair =
    R"({"question_id": 81, "model_1": "red", "model_2": "blue", "g1_winner": "model_1", "g2_winner": "tie", )"
    R"("judge": ["gpt-4", "pair-v2"], "g1_user_prompt": "?", "g1_judgment": "[[A]]", "g2_user_prompt": "?", )"
    R"("g2_judgment": "[[C]]", "turn": 2, "tstamp": 1.5})";
const std::string kSingle =
    R"({"question_id": 81, "model": "red", "judge": ["gpt-4", "single-v1"], "user_prompt": "?", )"
    R"("judgment": "[[7]]", "score": 7, "turn": 1, "tstamp": 1.5})";
const std::string kBattle =
    R"_({"question_id": "q1", "model_a": "red", "model_b": "blue", "winner": "tie (bothbad)", )_"
    R"("judge": "arena_user_9", "turn": 1, "anony": true, "language": "English", "tstamp": 1.5})";
const std::string kAnnotation =
    R"({"instruction": "say it", "output_1": "ten bytes.", "output_2": "more than ten bytes.", )"
    R"("generator_1": "red", "generator_2": "blue", "annotator": "weighted", "preference": 1.25})";
const std::string kHuman =
    "hit_id_hash,worker_id_hash,system_a,system_b,prompt,generation_system_a,generation_system_b,answer\n"
    "h1,w1,red,blue,\"Say it,\ntwice.\",it it,it,system_a\n"
    "h1,w2,red,blue,\"Say it,\ntwice.\",it it,it,tie\n";
const std::string kPoints =
    R"({"review_id": "r", "question_id": 1, "answer1_id": "x", "answer2_id": "y", "reviewer_id": 2, )"
    R"("metadata": {}, "text": "9 6.5\nwords", "score": [9.0, 6.5]})";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

// Votes that every part of can be told apart, as far as a layout can hold them.
std::vector<Vote> votes_for(std::string_view layout) {
  std::vector<Vote> votes;
  int review = 0;
  for (const char* item : {"1", "a-message"})
    for (bool swap : {false, true})
      for (Verdict verdict : {Verdict::first_wins, Verdict::tie, Verdict::second_wins, Verdict::invalid}) {
        const bool human = layout == "human-csv";
        if ((layout == "arena" || human) && verdict == Verdict::invalid) continue;
        Vote vote;
        vote.item = std::string(item) + std::to_string(review % 4);
        vote.first = swap ? "blue" : "red";
        vote.second = layout == "fastchat-single" ? "" : swap ? "red" : "blue";
        vote.judge = human ? "human" : "gpt-4";
        if (human) vote.rater = "w" + std::to_string(review % 3);
        vote.verdict = verdict;
        ++review;
        if (layout == "qlora") {
          vote.review = "r" + std::to_string(review);
          vote.first_answer = "x";
          vote.second_answer = "y";
          vote.prompt = "2";
        }
        if (layout == "fastchat-pair" || layout == "fastchat-single") {
          vote.prompt = "v2";
          vote.turn = 2;
        }
        if (layout == "fastchat-single") {
          vote.points = true;
          if (verdict != Verdict::invalid) vote.first_score = 7.5;
          if (verdict != Verdict::invalid) vote.verdict = Verdict::tie;
        }
        if (layout != "arena" && !human) vote.raw = "caf\u00e9 \"said\" so\n" + std::to_string(review);
        votes.push_back(vote);
      }
  return votes;
}

std::string key_of(const Vote& v, bool with_item) {
  return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}", with_item ? v.item : "", v.turn, v.first, v.second,
                     score_of(v.verdict), v.points, v.first_score.value_or(-1), v.judge, v.prompt, v.rater,
                     v.raw);
}

}  // namespace

TEST_CASE("every layout reads back what it writes") {
  for (const JudgmentLayout& layout : layouts()) {
    INFO(layout.name);
    test::TemporaryFolder dir;
    const std::vector<Vote> votes = votes_for(layout.name);
    std::vector<std::string> names;
    for (const auto& [name, content] : layout.write(votes)) {
      write_file(dir.path() / name, content);
      names.push_back((dir.path() / name).string());
    }
    const bool alpaca = layout.name == "alpaca-eval";
    // These name items by a hash of what is written.
    const bool item_kept = !alpaca && layout.name != "human-csv";
    std::multiset<std::string> written, read;
    for (const Vote& vote : votes) written.insert(key_of(vote, item_kept));
    for (const JudgmentFile& file : load_judgments(names)) {
      CHECK(file.layout == layout.name);
      for (const Vote& vote : file.votes) {
        Vote copy = vote;
        if (alpaca) copy.first_score = std::nullopt;  // a verdict is a share of 0, 1/2 or 1
        read.insert(key_of(copy, item_kept));
      }
    }
    CHECK(read == written);
  }
  CHECK_THROWS_WITH(layout("fastchat-par"), Contains("did you mean `fastchat-pair`"));
}

TEST_CASE("a judge whose name does not fit into a file's name stands in the rows") {
  std::vector<Vote> votes = votes_for("qlora");
  for (Vote& vote : votes) vote.judge = "org/gpt-4o-mini";
  test::TemporaryFolder dir;
  std::set<std::string> judges, firsts;
  for (const auto& [name, content] : layout("qlora").write(votes)) {
    CHECK_THAT(name, Contains("-org.gpt.4o.mini-reviewer"));
    write_file(dir.path() / name, content);
    for (const Vote& vote : read_judgments(dir.path() / name).votes) {
      judges.insert(vote.judge);
      firsts.insert(vote.first);
    }
  }
  CHECK(judges == std::set<std::string>{"org/gpt-4o-mini"});
  CHECK(firsts == std::set<std::string>{"blue", "red"});
}

TEST_CASE("one line of FastChat holds both orders") {
  std::vector<Vote> votes = read_text("gpt-4_pair.jsonl", kPair + "\n");
  REQUIRE(votes.size() == 2);
  CHECK((votes[0].first == "red" && votes[0].second == "blue" && votes[0].verdict == Verdict::first_wins));
  CHECK((votes[1].first == "blue" && votes[1].second == "red" && votes[1].verdict == Verdict::tie));
  CHECK((votes[0].item == "81" && votes[0].turn == 2 && votes[0].judge == "gpt-4" &&
         votes[0].prompt == "pair-v2"));
  CHECK((votes[0].raw == "[[A]]" && votes[1].raw == "[[C]]" && votes[1].part == 1));
  // The winner of game 2 names a model, and model_1 was shown second there.
  votes = read_text("gpt-4_pair.jsonl", replaced(kPair, "\"tie\"", "\"model_1\""));
  CHECK(votes[1].verdict == Verdict::second_wins);
  votes = read_text("gpt-4_pair.jsonl", replaced(kPair, "\"tie\"", "\"error\""));
  CHECK(votes[1].verdict == Verdict::invalid);
}

TEST_CASE("single scores and battles and annotations and points are read") {
  Vote single = read_text("gpt-4_single.jsonl", kSingle).at(0);
  CHECK((!single.pairwise() && single.points && single.valid() && single.first_score == 7.0));
  CHECK_FALSE(
      read_text("gpt-4_single.jsonl", replaced(kSingle, "\"score\": 7", "\"score\": -1")).at(0).valid());

  Vote battle = read_text("battles.jsonl", kBattle).at(0);
  CHECK((battle.verdict == Verdict::both_bad && battle.judge == "human" && battle.rater == "arena_user_9"));
  // An array, and battles without a question: every one has a prompt of its own.
  std::string bare = replaced(kBattle, "\"question_id\": \"q1\", ", "");
  std::vector<Vote> battles = read_text("clean_battle.json", "[\n" + bare + ",\n" + bare + "\n]\n");
  REQUIRE(battles.size() == 2);
  CHECK(battles[0].item != battles[1].item);
  CHECK(battles[1].line == 3);

  Vote annotation = read_text("annotations.json", "[" + kAnnotation + "]").at(0);
  CHECK((annotation.first == "red" && annotation.second == "blue" && !annotation.order_known));
  CHECK((annotation.verdict == Verdict::first_wins && annotation.first_score == 0.75));
  CHECK((annotation.first_length == 10 && annotation.second_length == 20 && annotation.judge == "weighted"));
  std::string nameless = replaced(kAnnotation, R"("generator_1": "red", "generator_2": "blue", )", "");
  CHECK(read_text("annotations.json", "[" + nameless + "]").at(0).second == "output_2");
  CHECK_FALSE(read_text("annotations.json", "[" + replaced(kAnnotation, "1.25", "null") + "]").at(0).valid());

  Vote points = read_text("red-vs-blue-gpt4-reviewer.jsonl", kPoints).at(0);
  CHECK((points.points && points.first_score == 9.0 && points.second_score == 6.5));
  CHECK((points.verdict == Verdict::first_wins && points.prompt == "2" && points.raw == "9 6.5\nwords"));
}

TEST_CASE("files that FastChat and AlpacaEval wrote themselves are read") {
  const Path folder = Path(test::source_folder()) / "eval/judge/fixtures";
  const std::vector<JudgmentFile> files = load_judgments(std::vector<std::string>{folder.string()});
  REQUIRE(files.size() == 5);  // by name: annotations, battles, pairs, singles, the table of human votes
  const std::vector<Vote>&annotations = files[0].votes, &battles = files[1].votes, &pairs = files[2].votes,
        &singles = files[3].votes;
  auto verdicts = [](const std::vector<Vote>& votes) {
    std::vector<Verdict> all;
    for (const Vote& vote : votes) all.push_back(vote.verdict);
    return all;
  };
  constexpr Verdict kFirst = Verdict::first_wins, kSecond = Verdict::second_wins, kTie = Verdict::tie,
                    kNone = Verdict::invalid;
  CHECK(files[0].layout == "alpaca-eval");
  CHECK(verdicts(annotations) == std::vector<Verdict>{kNone, kSecond, kFirst});
  CHECK((annotations[1].raw == "Output (b) is right." && annotations[1].judge == "our_judge" &&
         annotations[1].first == "red" && annotations[1].second_length == 13));
  CHECK(files[1].layout == "arena");
  CHECK(verdicts(battles) == std::vector<Verdict>{kFirst, kSecond, kTie, Verdict::both_bad, kFirst});
  CHECK((battles[1].first == "blue" && battles[1].rater == "arena_user_arena_user_1" &&
         battles[1].turn == 2 && battles[1].judge == "human" && battles[1].item == "conversation-1"));
  CHECK(files[2].layout == "fastchat-pair");
  CHECK(verdicts(pairs) == std::vector<Verdict>{kFirst, kSecond, kFirst, kFirst, kTie, kNone});
  CHECK((pairs[1].first == "blue" && pairs[1].raw == "The second. [[B]]" && pairs[1].prompt == "pair-v2"));
  CHECK(files[3].layout == "fastchat-single");
  CHECK((singles[1].first_score == 3.5 && singles[1].first == "blue" && singles[1].turn == 2));
  CHECK_FALSE(singles[3].valid());
}

TEST_CASE("an array on one line holds as many votes as the same array on many") {
  const std::string battle = replaced(kBattle, R"("question_id": "q1", )", "");
  const std::string other = replaced(kAnnotation, "say it", "say more");
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {battle, battle}, {kAnnotation, other}, {kPair, replaced(kPair, "81", "82")}};
  for (const auto& [one, two] : pairs) {
    const std::vector<Vote> lines = read_text("battle.json", "[" + one + ",\n" + two + ",\n" + two + "]");
    const std::vector<Vote> line = read_text("battle.json", "[" + one + "," + two + ", " + two + "]");
    INFO(one);
    REQUIRE(line.size() == lines.size());
    std::set<std::pair<int, int>> places;
    std::set<std::string> items, items_of_lines;
    for (size_t i = 0; i < line.size(); ++i) {
      CHECK(line[i].line == 1);
      CHECK(line[i].verdict == lines[i].verdict);
      places.emplace(line[i].line, line[i].part);
      items.insert(line[i].item);
      items_of_lines.insert(lines[i].item);
    }
    CHECK(places.size() == line.size());
    CHECK(items.size() == items_of_lines.size());
  }
}

TEST_CASE("a table of human votes keeps every rater and knows an item by its prompt") {
  const Path folder = Path(test::source_folder()) / "eval/judge/fixtures";
  const std::vector<std::string> path = {(folder / "human_annotations.csv").string()};
  const std::vector<JudgmentFile> files = load_judgments(path);
  const std::vector<Vote>& votes = files.at(0).votes;
  REQUIRE((files[0].layout == "human-csv" && votes.size() == 6));
  CHECK((votes[0].judge == "human" && votes[0].rater == "w1" && votes[0].first == "gpt-3.5" &&
         votes[0].second == "red" && votes[0].verdict == Verdict::first_wins && votes[0].order_known));
  CHECK((votes[0].first_length == 17 && votes[0].second_length == 10));
  CHECK((votes[1].verdict == Verdict::tie && votes[1].item == votes[0].item && votes[1].rater == "w2"));
  CHECK((votes[3].first == "red" && votes[3].verdict == Verdict::second_wins && votes[3].line == 5));
  CHECK((votes[4].line == 8 && votes[3].item == item_of_words("Say \"hello\",\nthen stop.")));
  // Two of three for gpt-3.5; then one each way and a tie.
  const Matches majority = gather_matches(files, VoteRule::majority);
  REQUIRE(majority.matches.size() == 2);
  CHECK(std::count_if(majority.matches.begin(), majority.matches.end(),
                      [](const Match& m) { return m.outcome == Outcome::tie; }) == 1);
  CHECK(gather_matches(files, VoteRule::each).matches.size() == 6);
}

TEST_CASE("battles whose voters saw the names are read with a warning") {
  test::Warnings warnings;
  read_text("battle.jsonl", kBattle + "\n");
  CHECK(warnings.texts.empty());
  CHECK(read_text("battle.jsonl", kBattle + "\n" + replaced(kBattle, "true", "false") + "\n").size() == 2);
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Contains("battle.jsonl: in 1 of 2 battles") && Contains("anony"));
}

TEST_CASE("of a folder's tables only those with the header of human votes are judgments") {
  test::TemporaryFolder dir;
  write_file(dir.path() / "votes.csv", "\xEF\xBB\xBF" + replaced(kHuman, "answer\n", "answer\r\n"));
  write_file(dir.path() / "prices.csv", "system_a,price\nred,3\n");
  const std::vector<JudgmentFile> files = load_judgments(std::vector<std::string>{dir.path().string()});
  REQUIRE(files.size() == 1);
  CHECK((files[0].votes.size() == 2 && files[0].votes[1].line == 4));
}

TEST_CASE("a table of systems without answers is no table of human votes") {
  CHECK_THAT(complaint("pairs.csv", "system_a,system_b,score\nred,blue,1\n"), Contains("no known layout"));
}

TEST_CASE("bad rows of every layout are errors with file and line") {
  struct Case {
    const char* name;
    std::string content, says;
  };
  for (const Case& c : std::vector<Case>{
           {"gpt-4_pair.jsonl", kPair + "\n" + replaced(kPair, "\"tie\"", "\"model_3\""),
            "pair.jsonl:2: `g2_winner`"},
           {"gpt-4_pair.jsonl", kPair + "\n" + replaced(kPair, "\"blue\"", "\"red\""),
            ":2: judges red against itself"},
           {"gpt-4_pair.jsonl", kPair + "\n" + kPair.substr(0, 50), ":2: the last line is cut off"},
           {"gpt-4_single.jsonl", replaced(kSingle, "\"score\": 7", "\"score\": NaN"),
            ":1: a score must be a finite"},
           {"gpt-4_single.jsonl", replaced(kSingle, "\"score\": 7", "\"score\": \"7\""),
            ":1: `score` must be a number"},
           {"battles.jsonl", kBattle + "\n" + replaced(kBattle, "tie (bothbad)", "model_c"),
            ":2: unknown winner"},
           {"battles.json", "[" + kBattle + ",\n" + kBattle, "battles.json:2: the array is cut off"},
           {"battles.json", "[" + kBattle + ",\n" + kBattle + "] x", ":2: text after the array"},
           {"annotations.json", "[\n" + replaced(kAnnotation, "1.25", "NaN") + "]",
            ":2: a score must be a finite"},
           {"annotations.json", "[" + replaced(kAnnotation, "1.25", "2.5") + "]", "must lie between 1"},
           {"annotations.json", "[" + kAnnotation + ",\n{\"instruction\": 3}]",
            ":2: `instruction` must be text"},
           {"red-vs-blue-gpt4-reviewer.jsonl", replaced(kPoints, "6.5]", "Infinity]"),
            ":1: a score must be a finite"},
           {"votes.csv", replaced(kHuman, "tie\n", "both\n"), "votes.csv:4: unknown answer `both`"},
           {"votes.csv", replaced(kHuman, ",answer\n", ",choice\n"), "votes.csv:2: the row has no `answer`"},
           {"votes.csv", replaced(kHuman, "prompt,", "answer,"),
            "votes.csv:1: the header has column `answer`"},
           {"votes.csv", replaced(kHuman, "h1,w2", "h1"), "votes.csv:4: 7 fields, but the header has 8"},
           {"votes.csv", replaced(kHuman, "h1,w2,red", "h1,w2,"), "votes.csv:4: `system_a` is empty"},
           {"votes.csv", replaced(kHuman, "h1,w2,red", "h1,w2,blue"),
            "votes.csv:4: compares blue with itself"},
           {"votes.csv", kHuman.substr(0, kHuman.size() - 10), "votes.csv:4: the last line is cut off"},
           {"votes.csv", kHuman.substr(0, kHuman.size() - 21), "votes.csv:4: a quoted field never ends"},
           {"votes.csv", "name,price\nred,3\n", "votes.csv:2: the fields of this row"},
           {"notes.jsonl", "{\"a\": 1}\n", "notes.jsonl:1: the fields of this row"},
           {"notes.jsonl", kPoints, "must be FIRST-vs-SECOND"},
       }) {
    INFO(c.name << " " << c.says);
    CHECK_THAT(complaint(c.name, c.content), Contains(c.says));
  }
}

TEST_CASE("what a layout cannot hold is refused on writing") {
  Vote vote;
  vote.item = "1";
  vote.first = "red";
  vote.second = "blue";
  vote.judge = "gpt-4";
  vote.verdict = Verdict::first_wins;
  std::vector<Vote> one_order = {vote};
  CHECK_THROWS_WITH(layout("fastchat-pair").write(one_order), Contains("one order only"));
  CHECK_THROWS_WITH(layout("fastchat-single").write(one_order), Contains("one answer alone"));
  CHECK_THROWS_WITH(layout("human-csv").write(one_order), Contains("people's verdicts"));
  vote.turn = 2;
  CHECK_THROWS_AS(layout("qlora").write(std::vector<Vote>{vote}), Error);
  CHECK_THROWS_AS(layout("alpaca-eval").write(std::vector<Vote>{vote}), Error);
  vote.order_known = false;
  CHECK_THROWS_AS(layout("arena").write(std::vector<Vote>{vote}), Error);
}
