// Answers to files of questions, as users ask for them.
#include <fmt/format.h>
#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "experiments/test_program.h"
#include "results/sqlite.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Contains;

namespace {

std::vector<std::string> question_lines() {
  std::vector<std::string> lines;
  for (int i = 1; i <= 5; ++i)
    lines.push_back(
        fmt::format(R"({{"question_id": {}, "text": "What is {}?", "category": "generic"}})", i, i * i));
  return lines;
}

void write_questions(const Workbench& bench, const std::string& name, std::vector<std::string> lines) {
  bench.write(name, fmt::format("{}\n", fmt::join(lines, "\n")));
}

Json generate(const Workbench& bench, const std::vector<std::string>& more) {
  std::vector<std::string> words = {"generate", "--template", "oasst1", "--max-new-tokens", "10", "--json"};
  words.insert(words.end(), more.begin(), more.end());
  const ProgramEnd end = bench.run(words);
  INFO(end.err);
  REQUIRE(end.code == 0);
  const std::vector<Json> lines = records(end.out);
  CHECK((lines.size() == 2 && lines[0]["type"] == "launch"));
  CHECK(lines[0]["systems"].size() == lines[1]["systems"].size());
  return lines[1]["systems"];
}

// Answers by question id, from a file in FastChat's layout.
std::map<std::string, Json> answers_of(const Workbench& bench, const Json& system) {
  std::map<std::string, Json> answers;
  std::istringstream in(read_file(bench.path() / system["files"].back().get<std::string>()));
  for (std::string line; std::getline(in, line);) {
    const Json row = parse_json(line, "answers");
    answers[row["question_id"].dump()] = row["choices"][0]["turns"];
  }
  return answers;
}

}  // namespace

TEST_CASE("all runs of a sweep and their base answer together and only what is missing is made again") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  REQUIRE(bench.run({"sweep", "run", "s.yaml", "--set", "learning_rate=0.1"}).code == 0);
  write_questions(bench, "vicuna_questions.jsonl", question_lines());
  const std::vector<std::string> command = {"--runs", "sweep=test", "--base", "--questions",
                                            "vicuna_questions.jsonl"};
  std::vector<std::string> some = command;
  some.insert(some.end(), {"--limit", "2", "--prompt-lookup-num-tokens", "none"});
  for (const Json& system : generate(bench, some)) CHECK(system["new"] == 2);

  const Json all = generate(bench, command);
  REQUIRE(all.size() == 3);
  CHECK(all[0]["system"] == "model");
  CHECK(all[1]["system"] == "alpaca");
  std::vector<std::string> files;
  for (const Json& system : all) {
    CHECK(system["answers"] == 5);
    CHECK(system["new"] == 3);
    for (const Json& file : system["files"])
      files.push_back(read_file(bench.path() / file.get<std::string>()));
    CHECK_THAT(system["files"][0].get<std::string>(), Contains("-vicuna-generations-topp0.9-temp0.7.jsonl"));
  }
  CHECK(answers_of(bench, all[0]) != answers_of(bench, all[1]));
  const Json row = parse_json(files[0].substr(0, files[0].find('\n')), "row");
  CHECK(row["prompt"] == "### Human: What is 1?### Assistant:");

  // Two answers are lost: they alone are made again, and are what they were.
  Database(bench.path() / "results.db", Database::Mode::write)
      .exec("DELETE FROM generation WHERE question = '3' AND generation_set_id > 1");
  std::vector<std::string> again;
  for (const Json& system : generate(bench, command)) {
    CHECK(system["new"] == (system["system"] == "model" ? 0 : 1));
    for (const Json& file : system["files"])
      again.push_back(read_file(bench.path() / file.get<std::string>()));
  }
  REQUIRE(again.size() == files.size());
  for (size_t i = 0; i < files.size(); i += 2) CHECK(again[i] == files[i]);

  // One run alone, named by its adapter, has the answers that it had among the others.
  std::string adapter;
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "out" / "test"))
    if (entry.path().filename().string().ends_with("-alpaca")) adapter = (entry.path() / "adapter").string();
  std::vector<std::string> reversed = question_lines();
  std::reverse(reversed.begin(), reversed.end());
  write_questions(bench, "reversed.jsonl", reversed);
  const Json alone = generate(bench, {"--model", "model", "--adapter", adapter, "--questions",
                                      "reversed.jsonl", "--batch-size", "1", "--no-store"});
  CHECK(answers_of(bench, alone[0]) == answers_of(bench, all[1]));
  // Another seed gives other answers, under another name in the store.
  const Json other = generate(bench, {"--model", "model", "--adapter", adapter, "--questions",
                                      "vicuna_questions.jsonl", "--seed", "1", "--out", "other"});
  CHECK(answers_of(bench, other[0]) != answers_of(bench, all[1]));
  CHECK_THAT(other[0]["system"].get<std::string>(), Contains("alpaca-"));
  const Json stored = parse_json(
      bench.run({"results", "query", "SELECT DISTINCT template, decode_numerics FROM generations", "--json"})
          .out,
      "query");
  REQUIRE(stored.size() == 1);
  CHECK(stored[0]["template"] == "oasst1");
  CHECK(stored[0]["decode_numerics"] == "fast");
}

TEST_CASE("drafts change no answer and no key and a device says that it makes none") {
  Workbench bench;
  write_questions(bench, "some.jsonl", question_lines());
  const auto ask = [&](std::vector<std::string> more) {
    more.insert(more.begin(),
                {"--model", "model", "--questions", "some.jsonl", "--greedy", "--quant", "nf4"});
    return generate(bench, more)[0];
  };
  const Json plain = ask({"--prompt-lookup-num-tokens", "0"});
  CHECK(plain["new"] == 5);
  CHECK(ask({"--prompt-lookup-num-tokens", "10"})["new"] == 0);
  CHECK(ask({})["new"] == 0);
  for (const char* tokens : {"10", "auto", "None"}) {
    const Json drafted = ask({"--prompt-lookup-num-tokens", tokens, "--no-store", "--out", tokens});
    CHECK(drafted["new"] == 5);
    CHECK(drafted["key"] == plain["key"]);
    CHECK(answers_of(bench, drafted) == answers_of(bench, plain));
  }
  const std::vector<std::string> one = {"generate",
                                        "--model",
                                        "model",
                                        "--prompt",
                                        "a b",
                                        "--greedy",
                                        "--backend",
                                        "cuda-emulated",
                                        "--max-new-tokens",
                                        "2",
                                        "--prompt-lookup-num-tokens"};
  const auto on_device = [&](const char* tokens) {
    std::vector<std::string> words = one;
    words.emplace_back(tokens);
    return bench.run(words);
  };
  CHECK_THAT(on_device("3").err, Contains("prompt_lookup_num_tokens 3") && Contains("cuda-emulated"));
  CHECK(on_device("auto").err.empty());
  const ProgramEnd wrong = on_device("16");
  CHECK(wrong.code == 2);
  CHECK_THAT(wrong.err, Contains("--prompt-lookup-num-tokens") && Contains("auto,0,1"));
}

TEST_CASE("tokens are guessed as the command line says, or else the adapter's run") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  REQUIRE(bench
              .run({"sweep", "run", "s.yaml", "--set", "max_steps=1", "--set", "dataset=alpaca.json", "--set",
                    "prompt_lookup_num_tokens=10"})
              .code == 0);
  std::string adapter;
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "out" / "test"))
    if (entry.is_directory()) adapter = (entry.path() / "adapter").string();
  const auto ask = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {
        "generate",  "--model",         "model", "--prompt",         "zzzzzzzzzzzz", "--greedy", "--backend",
        "reference", "--compute-dtype", "f32",   "--max-new-tokens", "40",           "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const ProgramEnd end = bench.run(words);
    INFO(end.err);
    REQUIRE(end.code == 0);
    return parse_json(end.out, "stdout");
  };
  const Json plain = ask({"--prompt-lookup-num-tokens", "0"});
  CHECK(plain["steps"] == plain["ids"].size() - 1);
  CHECK(ask({"--prompt-lookup-num-tokens", "none"}) == plain);
  const Json guessed = ask({"--prompt-lookup-num-tokens", "10"});
  CHECK(guessed["ids"] == plain["ids"]);
  CHECK(guessed["steps"] < plain["steps"]);
  const Json of_run = ask({"--adapter", adapter});
  CHECK(of_run == ask({"--adapter", adapter, "--prompt-lookup-num-tokens", "10"}));
  CHECK(of_run["steps"] < ask({"--adapter", adapter, "--prompt-lookup-num-tokens", "0"})["steps"]);
}

TEST_CASE("later turns see the earlier answers and prompts without room are said") {
  Workbench bench;
  write_questions(bench, "mt.jsonl",
                  {R"({"question_id": 81, "category": "writing", "turns": ["One?", "Two?"]})",
                   R"({"question_id": 82, "category": "writing", "turns": ["One?"]})"});
  const Json system = generate(bench, {"--model", "model", "--questions", "mt.jsonl", "--greedy"})[0];
  CHECK(system["answers"] == 3);
  REQUIRE(system["files"].size() == 1);  // the release's layout has one turn alone
  auto answers = answers_of(bench, system);
  CHECK(answers["81"].size() == 2);
  CHECK(answers["81"][0] == answers["82"][0]);
  write_questions(bench, "too-long.jsonl",
                  {fmt::format(R"({{"question_id": 1, "text": "{}"}})", std::string(900, 'x'))});
  const Json cut = generate(bench, {"--model", "model", "--questions", "too-long.jsonl"})[0];
  CHECK(cut["no_room"] == 1);
  CHECK_THAT(cut["files"][0].get<std::string>(), Contains("too-long/model-too_long-generations-topp0.9"));
}

TEST_CASE("the model's own template goes by two words") {
  Workbench bench;
  const auto answer = [&](const char* own) {
    return bench.run({"generate", "--model", "model", "--prompt", "x", "--greedy", "--max-new-tokens", "4",
                      "--template", own, "--prompt-lookup-num-tokens", "0", "--json"});
  };
  const ProgramEnd one = answer("auto");
  INFO(one.err);
  CHECK(one.code == 0);
  CHECK(answer("own").out == one.out);
  const auto key = [&](const char* own) {
    const ProgramEnd end = bench.run({"eval", "mmlu", "--model", "model", "--data", "mmlu", "--samples", "1",
                                      "--shots", "0", "--chat-template", own, "--json"});
    INFO(end.err);
    REQUIRE(end.code == 0);
    return parse_json(end.out, "stdout")["key"];
  };
  CHECK(key("auto") == key("own"));
  CHECK(key("own") != key("none"));
}

TEST_CASE("what cannot be asked is refused") {
  Workbench bench;
  std::vector<std::string> twice = question_lines();
  twice.push_back(twice[1]);
  write_questions(bench, "twice.jsonl", twice);
  auto refused = [&](std::vector<std::string> words, int code, const std::string& text) {
    words.insert(words.begin(), "generate");
    const ProgramEnd end = bench.run(words);
    CHECK(end.code == code);
    CHECK(end.out.empty());
    CHECK_THAT(end.err, Contains(text));
  };
  refused({"--model", "model", "--questions", "twice.jsonl"}, 3,
          "twice.jsonl:6: the question id 2 is that of line 2");
  CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));
  refused({"--model", "model"}, 2, "either --prompt TEXT or --questions FILE");
  refused({"--prompt", "x"}, 2, "either --model DIR or --runs");
  refused({"--runs", "sweep=x", "--prompt", "x"}, 2, "--runs needs --questions");
  refused({"--model", "model", "--prompt", "x", "--top-p", "1.5"}, 2, "top_p 1.5");
  refused({"--model", "model", "--prompt", "x", "--template", "vicunia"}, 2, "did you mean `vicuna`");
}
