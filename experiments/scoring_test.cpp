// Runs scored together after their sweep, and evaluations that are killed and go on, through the program
// itself.
#include <fmt/format.h>
#include <catch2/catch.hpp>
#include <csignal>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

int64_t count(const Workbench& bench, const std::string& table) {
  return query(bench, "SELECT count(*) AS n FROM " + table)[0]["n"];
}

// What was answered, of all runs.
Json predictions(const Workbench& bench, const std::string& db) {
  return query(bench,
               "SELECT m.name, s.name AS subject, i.ordinal, p.pred, p.scores, p.greedy, p.text, p.extracted"
               " FROM prediction p"
               " JOIN evaluation e USING(evaluation_id) JOIN subject_model m USING(subject_model_id)"
               " JOIN item i USING(item_id) JOIN subject s USING(subject_id) ORDER BY 1, 2, 3",
               db);
}

void train(const Workbench& bench) {
  bench.write_sweep("s.yaml");
  ProgramEnd end = bench.run({"sweep", "run", "s.yaml"});
  INFO(end.err);
  REQUIRE(end.code == 0);
}

// Questions enough that a pass takes a while on the plain loops.
void write_questions(const Workbench& bench, int count) {
  std::string rows;
  for (int i = 0; i < count; ++i)
    rows +=
        fmt::format("Number {}?,{},{},{},{},{}\n", i * 7919 % 100'000, i, i + 1, i + 2, i + 3, "ABCD"[i % 4]);
  bench.write("mmlu/test/anatomy_test.csv", rows);
}

}  // namespace

TEST_CASE("runs of a sweep are scored together and stored as the sweep would have") {
  Workbench bench;
  train(bench);
  const std::vector<std::string> ask = {"eval",    "mmlu", "--data", "mmlu",
                                        "--shots", "2",    "--runs", "sweep=test"};
  ProgramEnd scored = bench.run(ask);
  INFO(scored.err);
  REQUIRE(scored.code == 0);
  CHECK_THAT(scored.err, Contains("2 runs on model, the base loaded once"));
  CHECK_THAT(scored.out, Contains("2 of 2 runs") && Contains("alpaca") && Contains("dialogues"));
  CHECK(count(bench, "evaluation") == 2);
  CHECK(count(bench, "partial_answer") == 0);

  // The sweep finds its work done, and the same program scores nothing twice.
  bench.write_sweep("s.yaml", "evals: [{task: mmlu, data: mmlu, shots: 2}]\n");
  ProgramEnd sweep = bench.run({"sweep", "run", "s.yaml"});
  INFO(sweep.err);
  CHECK_THAT(sweep.err, Contains("nothing to do"));
  ProgramEnd again = bench.run(ask);
  CHECK(again.code == 0);
  CHECK(again.out == scored.out);
  CHECK_THAT(again.err, !Contains("the base loaded once"));

  // By name; and each alone answers as among others.
  ProgramEnd one = bench.run({"eval", "mmlu", "--data", "mmlu", "--shots", "2", "--runs", "dialogues",
                              "--json", "--db", "results.db"});
  CHECK(one.code == 0);
  const std::vector<Json> lines = records(one.out);
  REQUIRE(lines.size() == 2);
  CHECK((lines[0]["type"] == "launch" && lines[0]["runs"] == Json::array({"dialogues"})));
  CHECK((lines[0]["evaluations"] == 1 && lines[0]["to_do"] == 0));
  REQUIRE(lines[1]["scores"].size() == 1);
  const Json& score = lines[1]["scores"][0];
  CHECK(score["key"].get<std::string>().size() == 64);
  CHECK((score["subjects"].size() == 2 && score["subjects"]["anatomy"]["n"] == 6));
  CHECK(score["groups"].contains("stem@hendrycks"));
}

TEST_CASE("a choice of runs that cannot be scored is refused") {
  Workbench bench;
  train(bench);
  auto refused = [&](const std::vector<std::string>& more, const std::string& why) {
    std::vector<std::string> ask = {"eval", "mmlu", "--data", "mmlu"};
    ask.insert(ask.end(), more.begin(), more.end());
    ProgramEnd end = bench.run(ask);
    CHECK(end.code == 2);
    CHECK_THAT(end.err, Contains(why));
  };
  refused({}, "--model DIR or --runs is required");
  refused({"--runs", "sweep=test", "--model", "model"}, "without --model");
  refused({"--runs", "sweep=test", "--no-store"}, "--no-store does not fit");
  refused({"--runs", "alpaka"}, "did you mean `alpaca`?");
  refused({"--runs", "sweep=tset"}, "tset");
  std::filesystem::rename(bench.path() / "out", bench.path() / "elsewhere");
  ProgramEnd end = bench.run({"eval", "mmlu", "--data", "mmlu", "--runs", "alpaca"});
  CHECK(end.code == 3);
  CHECK_THAT(end.err, Contains("its adapter is not below out"));
}

TEST_CASE("a killed evaluation goes on at its first missing question and ends the same") {
  Workbench bench;
  train(bench);
  write_questions(bench, 400);
  const std::vector<std::string> ask = {"eval",      "mmlu",      "--data",     "mmlu",       "--shots",
                                        "5",         "--runs",    "sweep=test", "--subjects", "anatomy",
                                        "--backend", "reference", "--threads",  "1"};
  std::filesystem::copy(bench.path() / "results.db", bench.path() / "calm.db");
  std::vector<std::string> calm = ask;
  calm.insert(calm.end(), {"--db", "calm.db"});
  ProgramEnd undisturbed = bench.run(calm);
  INFO(undisturbed.err);
  REQUIRE(undisturbed.code == 0);

  Program program(bench.path(), ask);
  TemporaryFolder reader;  // output of its own while the program runs
  int64_t kept = 0;
  for (int i = 0; i < 3000 && kept == 0; ++i) {
    ProgramEnd end = Program(reader.path(), {"results", "query", "SELECT count(*) AS n FROM partial_answer",
                                             "--json", "--db", (bench.path() / "results.db").string()})
                         .wait();
    if (end.code == 0) kept = parse_json(end.out, "query")[0]["n"];
  }
  if (pid_t worker = program.worker(); worker > 0) ::kill(worker, SIGKILL);
  ::kill(program.pid(), SIGKILL);
  program.wait();
  REQUIRE(kept > 0);
  REQUIRE(count(bench, "evaluation") == 0);
  kept = count(bench, "partial_answer");
  CHECK(kept < 800);

  ProgramEnd again = bench.run(ask);
  INFO(again.err);
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains(fmt::format("goes on after {} answers that are stored", kept)));
  CHECK(count(bench, "evaluation") == 2);
  CHECK(count(bench, "partial_answer") == 0);
  CHECK(predictions(bench, "results.db") == predictions(bench, "calm.db"));
}

namespace {

void remove_database(const Workbench& bench, const std::string& db) {
  for (const char* part : {"", "-wal", "-shm"}) std::filesystem::remove(bench.path() / (db + part));
}

// Runs `ask` into a new results.db, kills it once that holds some of its answers, and returns how many it
// holds then. A run that was through before anybody looked is tried again.
int64_t run_and_kill(const Workbench& bench, const std::vector<std::string>& ask) {
  const std::string sql =
      "SELECT (SELECT count(*) FROM partial_answer) AS kept, (SELECT count(*) FROM evaluation) AS whole";
  TemporaryFolder reader;
  for (int attempt = 0; attempt < 10; ++attempt) {
    remove_database(bench, "results.db");
    Program program(bench.path(), ask);
    int64_t kept = 0, whole = 0;
    for (int i = 0; i < 3000 && kept == 0 && whole == 0; ++i) {
      ProgramEnd end = Program(reader.path(), {"results", "query", sql, "--json", "--db",
                                               (bench.path() / "results.db").string()})
                           .wait();
      if (end.code != 0) continue;
      const Json counts = parse_json(end.out, "query");
      kept = counts[0]["kept"];
      whole = counts[0]["whole"];
    }
    ::kill(program.pid(), SIGKILL);
    program.wait();
    if (kept > 0 && count(bench, "evaluation") == 0) return count(bench, "partial_answer");
  }
  return 0;
}

}  // namespace

TEST_CASE("a killed evaluation of one model goes on at its first missing item") {
  Workbench bench;
  write_questions(bench, 300);
  std::string rows;
  for (int i = 0; i < 200; ++i)
    rows += fmt::format(R"({{"passage": "{} is {} and no more.", "question": "is it {}", "label": {}}})",
                        i * 7919, i, i, i % 2) +
            "\n";
  bench.write("boolq.jsonl", rows);
  rows.clear();
  for (int i = 0; i < 100; ++i)
    rows +=
        fmt::format(R"({{"question": "What is {} and {}?", "answer": "#### {}"}})", i * 7919, i, i) + "\n";
  bench.write("gsm8k.jsonl", rows);
  const std::vector<std::vector<std::string>> tasks = {
      {"eval", "mmlu", "--data", "mmlu", "--shots", "5", "--subjects", "anatomy", "--protocol", "qlora"},
      {"eval", "boolq", "--data", "boolq.jsonl"},
      {"eval", "gsm8k", "--data", "gsm8k.jsonl", "--shots", "0", "--max-new-tokens", "6"}};
  for (std::vector<std::string> ask : tasks) {
    INFO(ask[1]);
    ask.insert(ask.end(), {"--model", "model", "--backend", "reference", "--threads", "1"});
    std::vector<std::string> calm = ask;
    calm.insert(calm.end(), {"--db", "calm.db"});
    ProgramEnd undisturbed = bench.run(calm);
    INFO(undisturbed.err);
    REQUIRE(undisturbed.code == 0);
    const int64_t kept = run_and_kill(bench, ask);
    REQUIRE(kept > 0);
    ProgramEnd again = bench.run(ask);
    INFO(again.err);
    CHECK(again.code == 0);
    CHECK(again.out == undisturbed.out);
    CHECK_THAT(again.err,
               Contains(fmt::format("{}: goes on after {} answers that are stored", ask[1], kept)));
    CHECK(count(bench, "partial_answer") == 0);
    CHECK(predictions(bench, "results.db") == predictions(bench, "calm.db"));
    remove_database(bench, "calm.db");
  }
}

TEST_CASE("scores of MMLU are written in the layout of the harness too") {
  Workbench bench;
  const std::vector<std::string> command = {"eval",    "mmlu", "--model",  "model",   "--data", "mmlu",
                                            "--shots", "1",    "--output", "harness", "--json"};
  const ProgramEnd end = bench.run(command);
  INFO(end.err);
  REQUIRE(end.code == 0);
  const Json report = parse_json(end.out, "stdout");
  int samples = 0, results = 0;
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "harness/model")) {
    const std::string text = read_file(entry.path());
    if (entry.path().extension() == ".jsonl") {
      samples += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
      continue;
    }
    ++results;
    const Json json = parse_json(text, "results");
    CHECK(json["results"]["mmlu"]["acc,none"] == report["micro"]["value"]);
    CHECK(json["results"]["mmlu_anatomy"]["sample_len"] == 6);
    CHECK(json["config"]["limit"].is_null());
  }
  CHECK(samples == 12);
  CHECK(results == 1);

  std::vector<std::string> some = command;
  some.insert(some.end(), {"--samples", "4", "--no-store"});
  some[std::find(some.begin(), some.end(), "harness") - some.begin()] = "some";
  REQUIRE(bench.run(some).code == 0);
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "some/model"))
    if (entry.path().extension() == ".json")
      CHECK(parse_json(read_file(entry.path()), "results")["config"]["limit"] == 4);
}
