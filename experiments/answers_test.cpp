// Answers, judgments and ratings of a sweep's own runs, through the program itself.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "eval/judge/loopback_server.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

constexpr const char* kGenerate =
    "generate:\n  - {questions: everyday_questions.jsonl, template: guanaco, temperature: 1, top_p: 1, "
    "max_new_tokens: 6, base: true}\n";
constexpr const char* kJudge =
    "judge:\n  - {judge: base, name: self, chat_template: guanaco, prompts: short.jsonl, max_tokens: 3}\n";

Json answers(const Workbench& bench, const std::string& db = "results.db") {
  return query(bench, "SELECT system, question, turn, answer FROM generations ORDER BY 1, 2, 3", db);
}

void change(const Workbench& bench, const std::string& from, const std::string& to) {
  std::string text = read_file(bench.path() / "s.yaml");
  REQUIRE(text.find(from) != std::string::npos);
  bench.write("s.yaml", text.replace(text.find(from), from.size(), to));
}

Path journal(const Workbench& bench) {
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "out/test/judgments"))
    return entry.path();
  return {};
}

int64_t votes_in(const Path& folder) {
  int64_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().find("-vs-") != std::string::npos) {
      const std::string text = read_file(entry.path());
      n += std::count(text.begin(), text.end(), '\n');
    }
  return n;
}

}  // namespace

TEST_CASE("a sweep answers questions and has every two systems judged in both orders") {
  Workbench bench;
  bench.write_questions("everyday_questions.jsonl");
  bench.write_sweep("s.yaml", std::string(kGenerate) + kJudge);
  const ProgramEnd dry = bench.run({"sweep", "run", "s.yaml", "--dry-run"});
  INFO(dry.err);
  REQUIRE(dry.code == 0);
  CHECK_THAT(dry.out, Contains("answers of 3 systems to 3 questions of everyday: 9 to do of 9") &&
                          Contains("judgments of everyday by self: 18 to do of 18"));
  CHECK_FALSE(std::filesystem::exists(bench.path() / "out"));

  const ProgramEnd end = bench.run({"sweep", "run", "s.yaml"});
  INFO(end.err);
  REQUIRE(end.code == 0);
  CHECK_THAT(end.err, Contains("18 answered") && Contains("Small models judge badly"));
  const Json given = answers(bench);
  CHECK(given.size() == 9);
  CHECK(query(bench, "SELECT count(*) AS n FROM votes_view WHERE judge = 'self'")[0]["n"] == 18);
  CHECK(std::filesystem::exists(bench.path() / "out/test/answers/everyday/model_answer/alpaca.jsonl"));

  const ProgramEnd again = bench.run({"sweep", "run", "s.yaml"});
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains("nothing to do"));
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).out,
             Contains("0 to do of 9") && Contains("0 to do of 18"));

  // What is asked by hand is what the sweep has asked.
  const ProgramEnd by_hand =
      bench.run({"generate", "--runs", "sweep=test", "--base", "--questions", "everyday_questions.jsonl",
                 "--template", "guanaco", "--temperature", "1", "--top-p", "1", "--max-new-tokens", "6"});
  INFO(by_hand.err);
  CHECK(by_hand.code == 0);
  CHECK_THAT(by_hand.out, Contains("alpaca: 3 answers, 0 of them new"));

  // Both go on at the first that is missing, and end the same.
  const Path votes = journal(bench);
  for (const auto& entry : std::filesystem::directory_iterator(votes))
    if (entry.path().filename().string().starts_with("alpaca-vs-dialogues")) {
      std::string text = read_file(entry.path());
      write_file(entry.path(), text.substr(0, text.size() / 2));  // in the middle of a line
    }
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).out, Contains("2 to do of 18"));
  const ProgramEnd rest = bench.run({"sweep", "run", "s.yaml"});
  INFO(rest.err);
  CHECK(rest.code == 0);
  CHECK_THAT(rest.err, Contains("goes on after 16 that are there") && Contains("2 answered"));
  CHECK(votes_in(votes) == 18);
}

TEST_CASE("more questions are asked of answers and judges that are there, and nothing twice") {
  Workbench bench;
  bench.write_questions("everyday_questions.jsonl");
  std::string some = kGenerate;
  some.insert(some.find("base: true"), "limit: 1, ");
  bench.write_sweep("s.yaml", some + kJudge);
  REQUIRE(bench.run({"sweep", "run", "s.yaml"}).code == 0);
  CHECK(answers(bench).size() == 3);
  bench.write_sweep("s.yaml", std::string(kGenerate) + kJudge);
  // As long as a system has not answered all, every vote may be new.
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).out,
             Contains("6 to do of 9") && Contains("18 to do of 18"));
  const ProgramEnd rest = bench.run({"sweep", "run", "s.yaml"});
  INFO(rest.err);
  REQUIRE(rest.code == 0);
  CHECK_THAT(rest.err, Contains("goes on after 6 that are there") && Contains("12 answered"));
  const ProgramEnd at_once =
      bench.run({"sweep", "run", "s.yaml", "--db", "once.db", "--set", "output_dir=once"});
  INFO(at_once.err);
  REQUIRE(at_once.code == 0);
  CHECK(answers(bench, "once.db") == answers(bench));
}

TEST_CASE("a tournament is rated from the votes of a sweep's own judge") {
  Workbench bench;
  bench.write_questions("everyday_questions.jsonl");
  // The base is asked for one token: such a judge has no verdict, so its words are put right by hand.
  bench.write_sweep("s.yaml", std::string(kGenerate) + kJudge +
                                  "tournaments: [{name: own, judge: self, orders: 10, bootstrap: 0}]\n");
  const ProgramEnd weak = bench.run({"sweep", "run", "s.yaml"});
  INFO(weak.err);
  CHECK(weak.code == 1);
  CHECK_THAT(weak.err, Contains("failed: tournament own"));
  const Path votes = journal(bench);
  for (const auto& entry : std::filesystem::directory_iterator(votes)) {
    if (entry.path().filename().string().find("-vs-") == std::string::npos) continue;
    std::string text = read_file(entry.path());
    for (size_t at = 0; (at = text.find("\"score\":", at)) != std::string::npos; at += 8)
      text.replace(at, text.find('}', at) - at, "\"score\": 1");
    write_file(entry.path(), text);
  }
  const ProgramEnd end = bench.run({"sweep", "run", "s.yaml", "--json"});
  INFO(end.err);
  CHECK(end.code == 0);
  const Json done = parse_json(end.out.substr(end.out.rfind("{\"exit_code\"")), "stdout");
  REQUIRE(done["ratings"]["own"].size() == 3);
  CHECK(done["ratings"]["own"][0]["games"] == 12);
}

TEST_CASE("votes are stored once all are there and rated once all sets are judged") {
  Workbench bench;
  bench.write_questions("everyday_questions.jsonl");
  std::atomic<bool> strict{true};
  LoopbackServer server([&](const LoopbackServer::Request& request) {
    if (strict && request.number >= 2) return LoopbackServer::Reply{401, "no more", "", 0, "", false};
    return LoopbackServer::Reply{200, completion("1"), "", 0, "", false};
  });
  ::setenv("no_proxy", "127.0.0.1", 1);
  ::setenv("OPENAI_BASE_URL", server.url().c_str(), 1);
  std::string generate = kGenerate;
  generate.insert(generate.find("base: true"), "limit: 1, ");
  const std::string judge =
      "judge: [{judge: gpt-4, concurrency: 1, prompts: short.jsonl}]\n"
      "tournaments: [{name: own, judge: gpt-4, orders: 10, bootstrap: 0}]\n";
  const auto stored = [&](const char* what) {
    return query(bench, fmt::format("SELECT count(*) AS n FROM {}", what))[0]["n"].get<int64_t>();
  };
  bench.write_sweep("s.yaml", generate + judge);
  CHECK(bench.run({"sweep", "run", "s.yaml"}).code == 1);
  CHECK(votes_in(journal(bench)) == 2);
  CHECK(stored("votes_view") == 0);
  strict = false;
  const ProgramEnd rest = bench.run({"sweep", "run", "s.yaml"});
  INFO(rest.err);
  CHECK(rest.code == 0);
  CHECK(stored("votes_view") == 6);
  CHECK_THAT(rest.out, Contains("tournament own"));

  // Without their adapters the runs cannot answer a second set.
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "out/test"))
    if (entry.is_directory()) std::filesystem::remove_all(entry.path() / "adapter");
  bench.write("more_questions.jsonl", read_file(bench.path() / "everyday_questions.jsonl"));
  generate += "  - {questions: more_questions.jsonl, template: guanaco, max_new_tokens: 6, base: true}\n";
  bench.write_sweep("s.yaml", generate + judge);
  const ProgramEnd less = bench.run({"sweep", "run", "s.yaml"});
  INFO(less.err);
  CHECK(less.code == 1);
  CHECK_THAT(less.err, Contains("fewer than two systems have answered more"));
  CHECK_THAT(less.out, !Contains("tournament own"));
  CHECK(stored("votes_view") == 6);
  ::unsetenv("OPENAI_BASE_URL");
}

TEST_CASE("a plan says when two answers of full length do not fit into the judge's context") {
  Workbench bench;
  bench.write_questions("everyday_questions.jsonl");
  const std::string what = "tokens more than the judge's context has";
  auto plan = [&](int new_tokens) {
    std::string generate = kGenerate;
    generate.replace(generate.find("max_new_tokens: 6"), 17, fmt::format("max_new_tokens: {}", new_tokens));
    bench.write_sweep("s.yaml", generate + kJudge);
    const ProgramEnd dry = bench.run({"sweep", "run", "s.yaml", "--dry-run"});
    INFO(dry.err);
    REQUIRE(dry.code == 0);
    return dry.out;
  };
  auto over = [&](const std::string& out) {
    const std::string before = "two answers of full length need ";
    const size_t at = out.find(before);
    REQUIRE(at != std::string::npos);
    CHECK_THAT(out.substr(at), Contains(what) && Contains("fewer max_new_tokens"));
    return std::stoi(out.substr(at + before.size()));
  };
  CHECK_THAT(plan(6), !Contains(what));
  // 640 positions: the question with its template, two answers, a verdict of three tokens.
  const int some = over(plan(330));
  CHECK(some > 2 * 330 + 3 - 640);
  CHECK(over(plan(335)) == some + 10);
  CHECK_THAT(plan(330 - (some + 1) / 2), !Contains(what));
}

TEST_CASE("answers of a run that failed are not counted unless it is tried again") {
  Workbench bench;
  bench.write_questions("everyday_questions.jsonl");
  bench.write_sweep("s.yaml", std::string(kGenerate) + kJudge);
  change(bench, "learning_rate: 1e-3", "max_grad_norm: 0");
  change(bench, "parameters: {dataset: [alpaca.json, dialogues.jsonl]}",
         "dataset: alpaca.json\nparameters: {learning_rate: [1e-3, 2e-3, 1e38]}");
  const ProgramEnd end = bench.run({"sweep", "run", "s.yaml"});
  INFO(end.err);
  CHECK(end.code == 1);
  CHECK_THAT(end.err, Contains("nan_loss"));
  CHECK(answers(bench).size() == 9);  // the base and two of the three runs
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).out,
             Contains("answers of 3 systems to 3 questions of everyday: 0 to do of 9") &&
                 Contains("judgments of everyday by self: 0 to do of 18"));
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml", "--dry-run", "--retry-failed"}).out,
             Contains("answers of 4 systems to 3 questions of everyday: 3 to do of 12") &&
                 Contains("judgments of everyday by self: 18 to do of 36"));
  const ProgramEnd again = bench.run({"sweep", "run", "s.yaml"});
  CHECK(again.code == 1);
  CHECK_THAT(again.err, Contains("failed before") && !Contains("answered"));
}

TEST_CASE("answers and judges that cannot be are refused before anything is trained") {
  Workbench bench;
  bench.write_questions("everyday_questions.jsonl");
  auto refused = [&](const std::string& more, int code, const std::string& word) {
    bench.write_sweep("bad.yaml", more);
    for (const char* dry : {"--dry-run", "--quiet"}) {
      const ProgramEnd end = bench.run({"sweep", "run", "bad.yaml", dry});
      INFO(more << "\n" << end.err);
      CHECK(end.code == code);
      CHECK_THAT(end.err, Contains(word));
    }
    CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));
  };
  const std::string ask = kGenerate;
  refused("generate: [{question: q}]\n", 2, "did you mean `questions`?");
  refused("generate: [{questions: nowhere.jsonl, template: guanaco}]\n", 3, "nowhere.jsonl");
  refused("generate: [{questions: everyday_questions.jsonl, template: guanako}]\n", 2, "guanaco");
  refused("generate: [{questions: q.jsonl, top_p: 2}]\n", 2, "bad.yaml:");
  const std::string once_more = "  - {questions: everyday_questions.jsonl, ";
  refused(ask + once_more + "template: guanaco, temperature: 1, top_p: 1, max_new_tokens: 6, limit: 1}\n", 2,
          "asked a second time in the same way");
  bench.write("other/everyday_questions.jsonl", "{\"question_id\": 1, \"text\": \"Why?\"}\n");
  refused(ask + "  - {questions: other/everyday_questions.jsonl, template: guanaco}\n", 2,
          "two sets of questions with one name");
  refused(kJudge, 2, "none of the sweep's `generate`");
  refused(ask + "judge: [{judge: 'model:nowhere'}]\n", 3, "nowhere");
  refused(ask + "judge: [{judge: base, budget_tokens: 5}]\n", 2, "for an endpoint");
  for (const auto& [settings, word] : {std::pair("concurrency: 257", "`concurrency` must be at most 256"),
                                       {"timeout: 0", "`timeout` must be above 0"},
                                       {"temperature: 2.5", "`temperature` must be at most 2"},
                                       {"longest_wait: -1", "`longest_wait` must not be negative"},
                                       {"budget_money: 5", "needs the prices"},
                                       {"parser: threeclas-2", "did you mean `threeclass-2`?"},
                                       {"parser: scores-2", "asked for verdicts"}})
    refused(ask + "judge:\n  - {judge: gpt-4, " + settings + "}\n", 2, word);
  refused(ask + "judge: [{judge: base, prompts: gone.jsonl, chat_template: guanaco}]\n", 3, "gone.jsonl");
  refused(ask + kJudge + "tournaments: [{name: own, judge: other}]\n", 2,
          "unknown judge `other`; known: self");
  refused(ask + kJudge + "tournaments: [{name: own, judge: self, systems: [nobody, base]}]\n", 2,
          "`systems`: unknown system `nobody`; known: ");

  // A plan needs no key.
  bench.write_sweep("keyless.yaml", ask + "judge: [{judge: gpt-4}]\n");
  CHECK(bench.run({"sweep", "run", "keyless.yaml", "--dry-run"}).code == 0);
  const ProgramEnd keyless = bench.run({"sweep", "run", "keyless.yaml"});
  CHECK(keyless.code == 2);
  CHECK_THAT(keyless.err, Contains("OPENAI_API_KEY is not set"));
  CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));
}
