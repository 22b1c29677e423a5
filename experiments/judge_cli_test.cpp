// Judgments by the program: agreement, bias, relative scores, the store, other layouts, parsing again.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "eval/judge/loopback_server.h"
#include "experiments/test_program.h"
#include "results/store.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

constexpr const char* kForward = "red-vs-blue-gpt-4-reviewer-threeclass.jsonl";
constexpr const char* kBackward = "blue-vs-red-gpt-4-reviewer-threeclass.jsonl";

std::string row(int question, const std::string& words, const std::string& score, const std::string& review) {
  return fmt::format(
      "{{\"review_id\": \"{}\", \"question_id\": {}, \"answer1_id\": \"x\", \"answer2_id\": \"y\", "
      "\"reviewer_id\": 1, "
      "\"metadata\": {{}}, \"text\": \"{}\", \"score\": {}}}\n",
      review, question, words, score);
}

// Ten questions in both orders: red always wins, but for one unread verdict.
void write_judgments(const Workbench& bench) {
  std::string forward, backward;
  for (int i = 0; i < 10; ++i) {
    forward +=
        i == 3 ? row(i, "I choose option 1.", "-1", "f3") : row(i, "so\\n1", "1", fmt::format("f{}", i));
    backward += row(i, "so\\n2", "2", fmt::format("b{}", i));
  }
  bench.write(std::string("votes/") + kForward, forward);
  bench.write(std::string("votes/") + kBackward, backward);
}

Json json_of(const Workbench& bench, std::vector<std::string> arguments) {
  arguments.push_back("--json");
  ProgramEnd end = bench.run(arguments);
  INFO(fmt::format("{}\n{}", fmt::join(arguments, " "), end.err));
  REQUIRE(end.code == 0);
  return parse_json(end.out, "stdout");
}

void check_refused(const Workbench& bench, const std::vector<std::string>& arguments, int code,
                   const std::vector<std::string>& words) {
  ProgramEnd end = bench.run(arguments);
  INFO(fmt::format("{}\n{}", fmt::join(arguments, " "), end.err));
  CHECK(end.code == code);
  CHECK(end.out.empty());
  for (const std::string& word : words) CHECK_THAT(end.err, Contains(word));
}

}  // namespace

TEST_CASE("bias and agreement are computed from files and from the store alike") {
  Workbench bench;
  write_judgments(bench);
  Json bias = json_of(bench, {"elo", "bias", "votes", "--bootstrap", "50"});
  const Json& judge = bias["judges"].at(0);
  CHECK((judge["votes"] == 20 && judge["invalid"] == 1 && judge["swaps"] == 9));
  CHECK(judge["consistent"]["value"] == 1.0);
  CHECK(json_of(bench, {"judge", "import", "votes"})["votes"] == 20);
  CHECK(json_of(bench, {"judge", "import", "votes"})["new_files"] == 0);
  CHECK(json_of(bench, {"elo", "bias", "--bootstrap", "50"})["judges"] == bias["judges"]);

  // The second parser recovers the verdict; both readings stay.
  Json reparse = json_of(bench, {"judge", "reparse", "--parser", "threeclass-2"});
  CHECK((reparse["invalid_before"] == 1 && reparse["invalid_after"] == 0 &&
         reparse["recovered"]["first"] == 1));
  CHECK(json_of(bench, {"elo", "bias"})["judges"][0]["invalid"] == 1);
  CHECK(json_of(bench, {"elo", "bias", "--parser", "threeclass-2"})["judges"][0]["invalid"] == 0);
  check_refused(bench, {"elo", "bias", "--parser", "threeclass-3"}, 2, {"did you mean `threeclass-2`"});

  // Ratings, win rates and plans too; a better reading is one match more.
  for (const char* verb : {"compute", "matrix", "plan"}) {
    CAPTURE(verb);
    CHECK(json_of(bench, {"elo", verb}) == json_of(bench, {"elo", verb, "votes"}));
    CHECK(json_of(bench, {"elo", verb, "--parser", "threeclass-2"}) != json_of(bench, {"elo", verb}));
  }
  CHECK(json_of(bench, {"elo", "matrix", "--preset", "arena"}) == json_of(bench, {"elo", "matrix"}));
  CHECK(json_of(bench, {"elo", "compute", "--parser", "threeclass-2"})["matches"] == 20);

  CHECK_THAT(bench.run({"elo", "compute"}).out, Contains("19 matches (1 vote without a verdict left out)"));

  ProgramEnd text = bench.run({"elo", "agree", "votes", "--bootstrap", "0"});
  CHECK_THAT(text.out, Contains("Nothing to compare") && Contains("--answers can check it"));
  CHECK_THAT(bench.run({"elo", "bias", "votes"}).out, Contains("consistent %"));
  bench.write("people/red-vs-blue-human-reviewer-threeclass.jsonl",
              "{\"question_id\": 1, \"text\": \"What?\", \"score\": 1}\n");
  CHECK_THAT(bench.run({"elo", "bias", "people", "votes"}).out,
             Contains("3 of 3 files alone; 2 of them have ids of answers"));
  CHECK_THAT(bench.run({"elo", "bias", "people"}).out,
             Contains("1 of 1 files alone.") && !Contains("--answers"));
}

TEST_CASE("votes of several judges count together with a note unless one is chosen") {
  Workbench bench;
  write_judgments(bench);
  REQUIRE(bench.run({"judge", "import", "votes"}).code == 0);
  const Json alone = json_of(bench, {"elo", "compute"});
  CHECK(alone["note"] == "");
  bench.write("more/red-vs-blue-claude-reviewer-threeclass.jsonl", row(1, "so\\n2", "2", "c"));
  REQUIRE(bench.run({"judge", "import", "more"}).code == 0);
  CHECK(json_of(bench, {"elo", "compute"})["matches"] == 20);
  for (const char* verb : {"compute", "matrix", "plan"})
    CHECK_THAT(bench.run({"elo", verb}).out,
               Contains("Votes of 2 judges count together: ") && Contains("--judge"));
  CHECK(json_of(bench, {"elo", "compute", "--judge", "gpt-4"}) == alone);
  CHECK(json_of(bench, {"elo", "compute", "--judge", "claude"})["matches"] == 1);
  check_refused(bench, {"elo", "matrix", "--judge", "claud"}, 2,
                {"unknown judge `claud`; did you mean `claude`?"});
  check_refused(bench, {"elo", "compute", "--preset", "qlora-vicuna-gpt4", "--judge", "gpt-4"}, 2,
                {"of one judge"});
}

TEST_CASE("every verb of elo takes files and the store alike") {
  Workbench bench;
  write_judgments(bench);
  bench.write("votes/red-vs-blue-claude-reviewer-threeclass.jsonl",
              row(1, "so\\n2", "2", "c1") + row(2, "so\\n1", "1", "c2"));
  bench.write("points/gpt-3.5-vs-red-gpt4-reviewer.jsonl", row(1, "8 6", "[8, 6]", "p1"));
  bench.write("points/red-vs-gpt-3.5-gpt4-reviewer.jsonl", row(1, "9 10", "[9, 10]", "p2"));
  for (const char* folder : {"votes", "points"})
    REQUIRE(bench.run({"judge", "import", folder, "--db", std::string(folder) + ".db"}).code == 0);
  struct Case {
    std::string verb, folder, key;
  };
  for (const Case& c : std::vector<Case>{{"compute", "votes", "ratings"},
                                         {"table", "votes", "columns"},
                                         {"matrix", "votes", "pairs"},
                                         {"agree", "votes", "judges"},
                                         {"bias", "votes", "judges"},
                                         {"relative", "points", "scores"},
                                         {"plan", "votes", "matches"}}) {
    INFO(c.verb);
    Json files = json_of(bench, {"elo", c.verb, c.folder});
    Json stored = json_of(bench, {"elo", c.verb, "--db", c.folder + ".db"});
    for (Json* json : {&files, &stored}) json->erase("note");  // how files tell the order of showing
    CHECK(files.at(c.key).size() > 0);
    CHECK(stored == files);
    check_refused(bench, {"elo", c.verb}, 3, {"results.db: there is no such results store"});
    check_refused(bench, {"elo", c.verb, c.folder, "--parser", "threeclass-2"}, 2, {"stored votes"});
  }
}

TEST_CASE("a table of ratings has a column for each judge and the paper's beside a published one") {
  Workbench bench;
  write_judgments(bench);
  bench.write("votes/red-vs-blue-claude-reviewer-threeclass.jsonl", row(1, "so\\n2", "2", "c"));
  const Json table = json_of(bench, {"elo", "table", "votes"});
  REQUIRE(table["columns"].size() == 2);
  CHECK((table["columns"][0]["heading"] == "claude" && table["columns"][0]["preset"].is_null()));
  // One judge prefers blue, the other red.
  for (size_t column : {0, 1})
    for (const Json& cell : table["columns"][column]["cells"]) {
      CHECK(cell["rank"] == ((cell["system"] == "blue") == (column == 0) ? 1 : 2));
      CHECK(cell["printed"].is_null());
    }
  CHECK(table["median_ranks"][0]["ours"] == 2);  // 1 and 2, rounded up
  CHECK_THAT(bench.run({"elo", "table", "votes", "--judge", "claude"}).out,
             Contains("claude, ours") && !Contains("gpt-4"));
  // A judge whose words hold no verdict has a column that says so.
  bench.write("more/red-vs-blue-mute-reviewer-threeclass.jsonl", row(1, "no", "-1", "m"));
  CHECK_THAT(bench.run({"elo", "table", "votes", "more"}).out, Contains("mute: no verdict could be read"));
  check_refused(bench, {"elo", "table", "more"}, 3, {"mute: no verdict could be read"});
  REQUIRE(bench.run({"judge", "import", "votes"}).code == 0);
  check_refused(bench, {"elo", "table", "--stored", "--preset", "qlora-vicuna-gpt4"}, 2,
                {"preset qlora-vicuna-gpt4: unknown system `gpt-4`; known: blue (/"});
  check_refused(bench, {"elo", "table", "--stored", "--preset", "qlora-vicuna-human"}, 3,
                {"no vote by human on questions"});
  check_refused(bench, {"elo", "table", "votes", "--human", "votes"}, 2, {"give no other votes too"});

  const Path data = test_data() / "04_qlora_eval";
  if (missing(data)) return;
  for (const char* folder : {"ratings-gpt4/vicuna/pairwise", "prd_human"})
    REQUIRE(bench.run({"judge", "import", (data / folder).string(), "--db", "paper.db"}).code == 0);
  const Json paper = json_of(
      bench, {"elo", "table", "--preset", "qlora", "--stored", "--db", "paper.db", "--orders", "500"});
  for (size_t column : {0, 1})
    for (const Json& cell : paper["columns"][column]["cells"])
      CHECK(cell["ours"] == Approx(cell["meant"].get<double>()).margin(2.5));
  CHECK(paper["columns"][2]["missing"] == "OA, GPT-4: no vote by gpt-4 on messages");
  // Without the preset nobody is left out, and the table says what that changes.
  CHECK_THAT(bench.run({"elo", "table", "--db", "paper.db", "--orders", "5"}).out,
             Contains("Vicuna, human, paper") && Contains("The paper rated without claude"));
}

TEST_CASE("systems are named with commas or blanks and never taken for files") {
  Workbench bench;
  write_judgments(bench);
  bench.write("more/red-vs-green-gpt-4-reviewer-threeclass.jsonl", row(1, "so\\n1", "1", "g"));
  for (const char* verb : {"compute", "table", "matrix", "plan", "agree", "bias"}) {
    const Json commas = json_of(bench, {"elo", verb, "votes", "more", "--systems", "red,blue"});
    CHECK(json_of(bench, {"elo", verb, "votes", "more", "--systems", "red", "blue"}) == commas);
    CHECK(json_of(bench, {"elo", verb, "--systems", "red", "blue", "votes", "more"}) == commas);
    CHECK(commas != json_of(bench, {"elo", verb, "votes", "more"}));
    check_refused(bench, {"elo", verb, "votes", "--systems", "red", "bleu"}, 2, {"unknown system `bleu`"});
    check_refused(bench, {"elo", verb, "votes", "red", "blue"}, 2,
                  {"red: there is no such file, but a system", "--systems red,blue"});
    check_refused(bench, {"elo", verb, "votes", "vots"}, 3, {"vots: no such file"});
    check_refused(bench, {"elo", verb, "vots/", "--systems", "red"}, 3, {"vots/: no such file"});
  }
}

TEST_CASE("an unknown system is told with its place and where the known ones stand") {
  Workbench bench;
  write_judgments(bench);
  const std::string blue = std::string("blue (votes/") + kBackward + ":1)";
  const std::string near =
      std::string("unknown system `bleu`; did you mean `blue` (votes/") + kBackward + ":1)?";
  const std::string far = "unknown system `yellow`; known: " + blue + ", red (votes/" + kBackward + ":1)";
  for (const char* verb : {"compute", "table", "matrix", "plan", "agree", "bias"}) {
    check_refused(bench, {"elo", verb, "votes", "--systems", "red,bleu"}, 2, {"--systems: " + near});
    check_refused(bench, {"elo", verb, "votes", "--systems", "red,yellow"}, 2, {"--systems: " + far});
  }
  const std::vector<std::string> named = {"elo", "compute", "votes", "--model",
                                          "bt",  "--name",  "t",     "--anchor"};
  for (const auto& [anchor, says] : std::map<std::string, std::string>{{"bleu=1", near}, {"yellow=1", far}}) {
    std::vector<std::string> arguments = named;
    arguments.push_back(anchor);
    check_refused(bench, arguments, 2, {"--anchor: " + says});
  }
  check_refused(bench, {"elo", "compute", "votes", "--preset", "qlora-vicuna-gpt4", "--name", "t"}, 2,
                {"preset qlora-vicuna-gpt4: unknown system `gpt-4`; known: " + blue});
  check_refused(bench, {"elo", "plan", "votes", "--new", "red"}, 2, {"red has matches already"});
  bench.write("answers/red.jsonl", "{\"question_id\": 0, \"text\": \"r\"}\n");
  check_refused(
      bench, {"elo", "compute", "votes", "--model", "bt", "--answers", "answers", "--name", "t"}, 3,
      {std::string("votes/") + kBackward + ":1: no answer of blue to prompt 0", "they answer for red"});
  CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));

  bench.write_sweep("s.yaml", "tournaments:\n  - {name: t, files: votes, systems: [red, bleu]}\n");
  check_refused(bench, {"sweep", "run", "s.yaml", "--dry-run"}, 2, {"s.yaml:18:44: `systems`: " + near});
  bench.write_sweep("s.yaml",
                    "tournaments:\n  - {name: t, files: votes, model: bt, anchors: [mean=1, yellow=2]}\n");
  check_refused(bench, {"sweep", "run", "s.yaml", "--dry-run"}, 2, {"s.yaml:18:58: `anchors`: " + far});
}

TEST_CASE("items with one rater are told where a judge has several") {
  Workbench bench;
  std::string human;
  for (int question : {1, 1, 1, 2, 2, 2, 3})
    human += fmt::format("{{\"question_id\": {}, \"text\": \"?\", \"score\": 1}}\n", question);
  bench.write("votes/answer_red-vs-answer_blue-human-reviewer_threeclass.jsonl", human);
  CHECK_THAT(bench.run({"elo", "agree", "votes", "--bootstrap", "0"}).out,
             Contains("human: 1 items with one rater are left out, beside these 2."));
  CHECK(json_of(bench, {"elo", "agree", "votes", "--bootstrap", "0"})["raters"][0]["single_rater_items"] ==
        1);
}

TEST_CASE("systems that are not asked for are left out and named") {
  Workbench bench;
  write_judgments(bench);
  bench.write("votes/red-vs-green-gpt-4-reviewer-threeclass.jsonl", row(1, "so\\n1", "1", "g"));
  CHECK_THAT(bench.run({"elo", "bias", "votes", "--bootstrap", "0", "--systems", "red,blue"}).out,
             Contains("Left out: green (not among the systems asked for)"));
  const Path human = test_data() / "04_qlora_eval/prd_human";
  if (!missing(human))  // four of its files are about a ninth system
    CHECK_THAT(
        bench.run({"elo", "bias", human.string(), "--preset", "qlora-vicuna-human", "--bootstrap", "0"}).out,
        Contains("Left out: claude (not of preset qlora-vicuna-human)"));
}

TEST_CASE("judgments are written in other layouts and read back") {
  Workbench bench;
  write_judgments(bench);
  REQUIRE(bench.run({"judge", "convert", "votes", "--to", "fastchat-pair", "--out", "pairs"}).code == 0);
  Json before = json_of(bench, {"elo", "bias", "votes"}), after = json_of(bench, {"elo", "bias", "pairs"});
  CHECK(before["judges"] == after["judges"]);
  REQUIRE(bench.run({"judge", "convert", "pairs", "--to", "arena", "--out", "arena"}).code == 0);
  CHECK(json_of(bench, {"elo", "bias", "arena"})["judges"][0]["votes"] == 19);
  check_refused(bench, {"judge", "convert", "votes", "--to", "fastchat-pair", "--out", "pairs"}, 2,
                {"there already"});
  check_refused(bench, {"judge", "convert", "votes", "--to", "fastchat-pairs", "--out", "x"}, 2,
                {"did you mean"});

  REQUIRE(bench.run({"judge", "reparse", "votes", "--out", "better"}).code == 0);
  CHECK(json_of(bench, {"elo", "bias", "better"})["judges"][0]["invalid"] == 0);
  CHECK_THAT(read_file(bench.path() / "better" / kForward), Contains("I choose option 1."));
}

TEST_CASE("points are shown relative to a reference") {
  Workbench bench;
  std::string first, second;
  for (int i = 0; i < 4; ++i) {
    first += row(i, "8 6", "[8, 6]", fmt::format("f{}", i));
    second += row(i, "9 10", "[9, 10]", fmt::format("s{}", i));
  }
  bench.write("points/gpt-3.5-vs-red-gpt4-reviewer.jsonl", first);
  bench.write("points/red-vs-gpt-3.5-gpt4-reviewer.jsonl", second);
  const Json scores = json_of(bench, {"elo", "relative", "points", "--bootstrap", "20"});
  CHECK(scores["scores"][0]["reference_first"]["value"] == 75.0);
  CHECK(scores["scores"][0]["system_first"]["value"] == 90.0);
  CHECK_THAT(bench.run({"elo", "relative", "points", "--paper"}).out, Contains("paper: first"));
  check_refused(bench, {"elo", "relative", "points", "--reference", "rad"}, 2,
                {"--reference: unknown system `rad`; did you mean `red` (points/gpt-3.5-vs-red-gpt4-reviewer"
                 ".jsonl:1)?"});
}

TEST_CASE("bad judgments are refused with file and line and nothing of them is stored") {
  Workbench bench;
  write_judgments(bench);
  const std::string good = row(1, "so\\n1", "1", "g");
  struct Case {
    std::string name, content;
    std::vector<std::string> says;
  };
  for (const Case& c : std::vector<Case>{{"zoo-vs-red-gpt-4-reviewer-threeclass.jsonl",
                                          good + "{\"question_id\": 2, \"sc",
                                          {"threeclass.jsonl:2", "cut off"}},
                                         {"zoo-vs-red-gpt-4-reviewer-threeclass.jsonl",
                                          good + "{\"question_id\": 2, \"score\": NaN}\n",
                                          {":2", "finite"}},
                                         {"red_vs_blue_gpt-4_reviewer_threeclass.jsonl",
                                          good,
                                          {":1: gpt-4 judges red", "votes/red-vs-blue", ":2 does"}},
                                         {"gpt-4_pair.jsonl",
                                          "{\"question_id\": 1, \"model_1\": \"a\", \"model_2\": \"b\", "
                                          "\"g1_winner\": \"model_3\", \"g2_winner\": "
                                          "\"tie\", \"judge\": \"j\"}\n",
                                          {"gpt-4_pair.jsonl:1", "unknown winner"}}}) {
    INFO(c.name);
    bench.write("votes/" + c.name, c.content);
    check_refused(bench, {"judge", "import", "votes"}, 3, c.says);
    check_refused(bench, {"elo", "compute", "votes", "--name", "t"}, 3, c.says);
    CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));
    std::filesystem::remove(bench.path() / "votes" / c.name);
  }
  check_refused(bench, {"elo", "bias", "votes", "--systems", "red,bleu"}, 2, {"did you mean `blue`"});
  check_refused(bench, {"elo", "bias"}, 3, {"results.db"});
}

TEST_CASE("an array on one line is stored and rated as on many") {
  Workbench bench;
  Json battles = Json::array(), annotations = Json::array();
  for (int i = 0; i < 6; ++i) {
    battles.push_back(
        {{"model_a", "red"}, {"model_b", "blue"}, {"winner", i % 3 == 0 ? "model_b" : "model_a"}});
    annotations.push_back({{"instruction", fmt::format("say {}", i)},
                           {"output_1", "it"},
                           {"output_2", "it too"},
                           {"generator_1", "red"},
                           {"generator_2", "blue"},
                           {"annotator", "weighted"},
                           {"preference", i % 3 == 0 ? 2.0 : 1.0}});
  }
  for (const auto& [name, rows] : {std::pair{"battle.json", battles}, {"annotations.json", annotations}}) {
    bench.write(std::string("line/") + name, rows.dump());
    bench.write(std::string("lines/") + name, rows.dump(1));
    auto rated = [&](const std::string& folder) {
      return json_of(bench,
                     {"elo", "compute", fmt::format("{}/{}", folder, name), "--model", "bt"})["ratings"];
    };
    CHECK(rated("line") == rated("lines"));
    CHECK(json_of(bench, {"judge", "import", std::string("line/") + name})["votes"] == 6);
  }
  CHECK(json_of(bench, {"elo", "matrix"})["pairs"][0]["wins"] == 8);
}

TEST_CASE("what the store has of a vote is not stored a second time under another name") {
  Workbench bench;
  write_judgments(bench);
  REQUIRE(bench.run({"judge", "import", "votes"}).code == 0);
  const Json before = json_of(bench, {"elo", "bias", "--bootstrap", "0"});
  bench.write("other/red_vs_blue_gpt-4_reviewer_threeclass.jsonl", row(3, "so\\n1", "1", "g"));
  check_refused(bench, {"judge", "import", "other"}, 3,
                {"other/red_vs_blue_gpt-4_reviewer_threeclass.jsonl:1: gpt-4 judges red", "votes/red-vs-blue",
                 ":4 does"});
  // The same file by another path is the same file, and a tournament over files keeps them to itself.
  CHECK(json_of(bench, {"judge", "import", (bench.path() / "votes").string()})["new_files"] == 0);
  for (const char* files : {"./votes", "other"})
    CHECK(bench.run({"elo", "compute", files, "--name", files, "--orders", "5"}).code == 0);
  CHECK(json_of(bench, {"elo", "bias", "--bootstrap", "0"}) == before);
  // A file that changed takes its own place.
  bench.write(std::string("votes/") + kForward, row(1, "so\\n1", "1", "f1"));
  CHECK(json_of(bench, {"judge", "import", "votes"})["new_files"] == 1);
  CHECK(json_of(bench, {"elo", "bias", "--bootstrap", "0"})["judges"][0]["votes"] == 11);
  check_refused(bench, {"elo", "bias", "--answers", "votes"}, 2, {"judge import --answers"});
}

TEST_CASE("a local model judges without a network and gives the same votes again") {
  Workbench bench;
  bench.write("q.jsonl", "{\"question_id\": 1, \"text\": \"hi\", \"category\": \"generic\"}\n");
  bench.write("red.jsonl", "{\"question_id\": 1, \"text\": \"r\"}\n");
  bench.write("blue.jsonl", "{\"question_id\": 1, \"text\": \"b\"}\n");
  bench.write("short.jsonl",
              "{\"prompt_id\": 1, \"system_prompt\": \"\", \"prompt_template\": "
              "\"{question}{answer_1}{answer_2}\", \"category\": \"general\"}\n");
  std::string votes;
  for (const char* out : {"one", "two"}) {
    ProgramEnd end = bench.run({"judge", "run", "--judge", "model:model", "--questions", "q.jsonl",
                                "--answers", "red.jsonl", "blue.jsonl", "--prompts", "short.jsonl",
                                "--chat-template", "guanaco", "--max-tokens", "5", "--out", out});
    INFO(end.err);
    CHECK(end.code == 0);
    CHECK_THAT(end.out, Contains("2 answered") && Contains("Small models judge badly"));
    std::string again = read_file(bench.path() / out / "red-vs-blue-model-reviewer-threeclass.jsonl");
    CHECK((votes.empty() || votes == again));
    votes = again;
  }
}

TEST_CASE("a study is run by the program and goes on where it stood and never writes the key") {
  Workbench bench;
  std::string questions, red, blue;
  for (int i = 0; i < 3; ++i) {
    questions +=
        fmt::format("{{\"question_id\": {0}, \"text\": \"question {0}\", \"category\": \"generic\"}}\n", i);
    red += fmt::format("{{\"question_id\": {0}, \"text\": \"red {0}\"}}\n", i);
    blue += fmt::format("{{\"question_id\": {0}, \"text\": \"blue {0}\"}}\n", i);
  }
  bench.write("q.jsonl", questions);
  bench.write("red.jsonl", red);
  bench.write("blue.jsonl", blue);
  std::atomic<bool> strict{true};
  LoopbackServer server([&](const LoopbackServer::Request& request) {
    if (strict && request.number >= 2)
      return LoopbackServer::Reply{401, "no more for sk-of-the-test", "", 0, "", false};
    return LoopbackServer::Reply{200, completion("so\\n1"), "", 0, "", false};
  });
  ::setenv("no_proxy", "127.0.0.1", 1);
  ::setenv("OPENAI_BASE_URL", server.url().c_str(), 1);
  ::setenv("OPENAI_API_KEY", "sk-of-the-test", 1);
  const std::vector<std::string> run = {"judge",   "run",           "--judge",   "gpt-4",      "--questions",
                                        "q.jsonl", "--answers",     "red.jsonl", "blue.jsonl", "--out",
                                        "votes",   "--concurrency", "1",         "--store"};
  std::vector<std::string> dry = run;
  dry.push_back("--dry-run");
  CHECK_THAT(bench.run(dry).out, Contains("6 of 6 questions"));
  const Json planned = json_of(bench, dry);
  CHECK((planned["questions"] == 6 && planned["missing"] == 6 && planned["prompt_bytes"] > 600));
  ProgramEnd end = bench.run(run);
  CHECK(end.code == 5);
  CHECK_THAT(end.err, Contains("4 of 6") && Contains("HTTP 401: no more for [key]"));
  CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));
  strict = false;
  const Json report = json_of(bench, run);
  CHECK((report["asked"] == 4 && report["left"] == 0 && report["prompt_tokens"] == 200));
  CHECK(json_of(bench, {"elo", "bias"})["judges"][0]["first"]["value"] == 1.0);
  std::vector<std::string> points = run;
  points.push_back("--points");
  check_refused(bench, points, 2, {"votes: prompt 1 has asked gpt-4 for verdicts, and now asks for points"});
  // A question that was edited is asked again, and the votes on what it was are set aside.
  bench.write("q.jsonl", questions + "\n");
  CHECK_THAT(bench.run(dry).out, Contains("0 of 6 questions"));
  bench.write("q.jsonl", questions.replace(questions.find("question 1"), 10, "Question 1"));
  end = bench.run(dry);
  CHECK_THAT(end.out, Contains("2 of 6 questions"));
  CHECK_THAT(end.err, Contains("2 votes in votes answer other requests"));
  end = bench.run(run);
  CHECK_THAT(end.err, Contains("set aside in its folder `superseded`"));
  CHECK_THAT(end.out, Contains("2 answered"));
  CHECK_FALSE(std::filesystem::is_empty(bench.path() / "votes/superseded"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(bench.path()))
    if (entry.is_regular_file()) CHECK(read_file(entry.path()).find("sk-of-the-test") == std::string::npos);
  std::vector<std::string> dear = points;
  *(std::find(dear.begin(), dear.end(), "--out") + 1) = "dear";
  dear.insert(dear.end(), {"--budget-money", "1"});
  CHECK(bench.run(dear).err == "qlora: a budget in money needs the prices of a million tokens\n");
  ::unsetenv("OPENAI_BASE_URL");
  ::unsetenv("OPENAI_API_KEY");
  ProgramEnd keyless = bench.run({"judge", "run", "--judge", "gpt-4", "--questions", "q.jsonl", "--answers",
                                  "red.jsonl", "blue.jsonl", "--out", "keyless"});
  CHECK(keyless.code == 2);
  CHECK_THAT(keyless.err, Contains("OPENAI_API_KEY is not set") && !Contains("asking"));
}

TEST_CASE("ratings by every model are stored by the command line and by a sweep alike") {
  Workbench bench;
  std::string votes;
  for (int i = 0; i < 12; ++i)
    votes += row(i, "so", i % 4 == 0 ? "2" : i % 4 == 1 ? "3" : "1", fmt::format("f{}", i));
  bench.write(std::string("votes/") + kForward, votes);
  const std::vector<std::string> models = {"elo", "bt", "rao-kupper", "davidson"};
  std::string tournaments = "tournaments:\n";
  for (const std::string& model : models) {
    CHECK(bench.run({"elo", "compute", "votes", "--model", model, "--name", "typed-" + model}).code == 0);
    tournaments += fmt::format("  - {{name: swept-{0}, files: votes, model: {0}}}\n", model);
  }
  bench.write_sweep("s.yaml", tournaments + "  - {name: swept-arena, files: votes, preset: arena}\n");
  CHECK(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).code == 0);
  const ProgramEnd end = bench.run({"sweep", "run", "s.yaml", "--set", "max_steps=1"});
  INFO(end.err);
  REQUIRE(end.code == 0);
  auto best = [&](const std::string& name, const std::string& model) {
    const Json rows = query(bench, fmt::format("SELECT * FROM elo_latest WHERE tournament = '{}'", name));
    REQUIRE(rows.size() == 2);
    CHECK(rows[0]["method"] == model);
    CHECK(rows[0]["system"] == "red");
    CHECK(rows[0]["ci_lo"] < rows[0]["rating"]);
    return rows[0]["rating"].get<double>();
  };
  for (const std::string& model : models)
    CHECK(best("typed-" + model, model) == best("swept-" + model, model));
  best("swept-arena", "bt");
}
