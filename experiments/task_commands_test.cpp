// qlora eval TASK as its users meet it.
#include <catch2/catch.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/base/json.h"
#include "eval/tasks/mmlu_protocol.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

TEST_CASE("tasks are listed and scored and stored with their items") {
  Workbench bench;
  const std::string samples = (Path(test::source_folder()) / "datasets/samples/tasks").string();
  const ProgramEnd list = bench.run({"eval", "list"});
  CHECK(list.code == 0);
  CHECK_THAT(list.out, Contains("hellaswag") && Contains("exact_match[strict-match]"));
  for (const char* protocol : {"hendrycks", "lm_eval", "qlora"}) {
    const std::string line = fmt::format("^mmlu +{} +{} ", mmlu_protocol_named(protocol).version, protocol);
    CHECK(std::regex_search(list.out, std::regex(line, std::regex::multiline)));
  }

  const std::vector<std::string> boolq = {"eval",   "boolq",     "--model",  "model",
                                          "--data", samples,     "--output", "harness/output",
                                          "--json", "--threads", "1"};
  const ProgramEnd end = bench.run(boolq);
  INFO(end.err);
  REQUIRE(end.code == 0);
  const Json report = parse_json(end.out, "stdout");
  CHECK(report["task"] == "boolq");
  CHECK(report["protocol"]["name"] == "lm_eval");
  CHECK(report["protocol"]["version"] == "2.0");
  CHECK(report["scores"][0]["metric"] == "acc");
  CHECK(report["scores"][0]["n"] == 2);
  CHECK_FALSE(report["protocol"].contains("rows"));
  CHECK(report["cut_requests"] == 0);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "harness/output/model")) {
    const std::string name = entry.path().filename().string();
    files += name.starts_with("results_") || name.starts_with("samples_boolq_") ? 1 : 0;
    if (!name.starts_with("results_")) continue;
    const Json config = parse_json(read_file(entry.path()), name)["config"];
    // Every number of the file of weights, and no seed, for no example was drawn.
    const Json model = parse_json(bench.run({"model", "show", "model", "--json"}).out, "stdout");
    CHECK(config["model_num_parameters"] == model["elements"]);
    CHECK(config["fewshot_seed"].is_null());
  }
  CHECK(files == 2);

  const std::string query =
      "SELECT t.name AS task, t.version, e.shots, count(p.item_id) AS items, length(p.scores) AS bytes FROM "
      "evaluation e JOIN task t USING (task_id) JOIN prediction p USING (evaluation_id) GROUP BY "
      "evaluation_id";
  auto stored = [&] { return parse_json(bench.run({"results", "query", query, "--json"}).out, "stdout"); };
  REQUIRE(stored().size() == 1);
  CHECK(stored()[0]["task"] == "boolq");
  CHECK(stored()[0]["items"] == 2);
  CHECK(stored()[0]["bytes"] == 8);  // two choices as f32
  CHECK(stored()[0]["version"].get<std::string>().starts_with("2.0-"));

  // The same once more is the same evaluation; a limit is another one.
  CHECK(parse_json(bench.run(boolq).out, "stdout")["key"] == report["key"]);
  CHECK(stored().size() == 1);
  const ProgramEnd text = bench.run({"eval", "arc_easy", "--model", "model", "--data", samples, "--limit",
                                     "1", "--shots", "1", "--threads", "1"});
  INFO(text.err);
  CHECK_THAT(text.out, Contains("arc_easy version 1.0, 1 shots, partial") && Contains("acc_norm"));
  CHECK(stored().size() == 2);
  // How examples are chosen is part of the protocol, unless it is as it always was.
  auto protocol = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"eval",      "arc_easy", "--model", "model",     "--data",
                                          samples,     "--limit",  "1",       "--shots",   "1",
                                          "--threads", "1",        "--json",  "--no-store"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return parse_json(bench.run(arguments).out, "stdout")["protocol"];
  };
  const Json drawn = protocol({}), first = protocol({"--fewshot-sampler", "first_n"});
  CHECK((drawn["fewshot_sampler"] == "lm_eval" && drawn["fewshot_seed"] == 1234));
  CHECK_FALSE(first.contains("fewshot_sampler"));

  // Of one item there is no correlation: NULL, and a line that says why.
  const ProgramEnd one = bench.run({"eval", "stsb", "--model", "model", "--data", samples, "--limit", "1",
                                    "--shots", "0", "--threads", "1"});
  INFO(one.err);
  CHECK_THAT(one.out, Contains("n/a") && Contains("pearson of all: undefined for fewer than two items"));
  const ProgramEnd kept =
      bench.run({"results", "query",
                 "SELECT value FROM eval_result JOIN metric_name n USING(metric_id) WHERE n.name = "
                 "'spearmanr'",
                 "--json"});
  CHECK(parse_json(kept.out, "stdout") == Json::parse("[{\"value\": null}]"));
}

TEST_CASE("a file of rendered MMLU prompts is asked as what it holds") {
  Workbench bench;
  bench.write("zero_shot_mmlu_val.json", R"({"subject": "anatomy", "input": "Q\nAnswer:", "output": "B"})");
  auto explained = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {
        "eval",    "mmlu", "--model",   "model", "--data", "zero_shot_mmlu_val.json",
        "--shots", "0",    "--explain", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return bench.run(words);
  };
  const ProgramEnd end = explained({"--protocol", "qlora"});
  INFO(end.err);
  REQUIRE(end.code == 0);
  const Json protocol = parse_json(end.out, "stdout")["protocol"];
  CHECK(protocol["split"] == "val");
  CHECK(protocol["rendered"] == true);
  // The folder says no more than its file's name does.
  const ProgramEnd folder = bench.run({"eval", "mmlu", "--model", "model", "--data", ".", "--shots", "0",
                                       "--explain", "--json", "--protocol", "qlora"});
  CHECK((folder.code == 0 && folder.out == end.out));
  const ProgramEnd split = explained({"--protocol", "qlora", "--split", "test"});
  CHECK(split.code == 2);
  CHECK_THAT(split.err, Contains("give --split val"));
  const ProgramEnd other = explained({"--protocol", "lm_eval"});
  CHECK(other.code == 2);
  CHECK_THAT(other.err, Contains("give --protocol qlora"));
}

TEST_CASE("texts are generated and scored and rolled through") {
  Workbench bench;
  const std::string samples = (Path(test::source_folder()) / "datasets/samples/tasks").string();
  const ProgramEnd words = bench.run({"eval", "gsm8k", "--model", "model", "--data", samples, "--shots", "0",
                                      "--max-new-tokens", "4", "--json", "--threads", "1"});
  INFO(words.err);
  REQUIRE(words.code == 0);
  CHECK(parse_json(words.out, "stdout")["scores"][1]["filter"] == "flexible-extract");
  const Json kept = query(bench,
                          "SELECT text, extracted ->> '$.strict-match' AS strict, correct FROM "
                          "predictions_view WHERE task = 'gsm8k'");
  REQUIRE(kept.size() == 2);
  CHECK_FALSE(kept[0]["text"].get<std::string>().empty());
  CHECK(kept[0]["strict"] == "[invalid]");
  CHECK(kept[0]["correct"] == 0);
  const ProgramEnd text =
      bench.run({"eval", "perplexity", "--model", "model", "--data", samples + "/perplexity.jsonl",
                 "--max-length", "8", "--stride", "4", "--json", "--threads", "1"});
  INFO(text.err);
  REQUIRE(text.code == 0);
  const Json scores = parse_json(text.out, "stdout")["scores"];
  CHECK(scores[0]["metric"] == "token_perplexity");
  CHECK(scores[0]["value"].get<double>() > 1);
}

TEST_CASE("CrowS-Pairs is shown as in Table 8 of the paper") {
  Workbench bench;
  const std::string samples = (Path(test::source_folder()) / "datasets/samples/tasks").string();
  const std::vector<std::string> ask = {"eval",  "crows_pairs_english", "--model", "model", "--data",
                                        samples, "--threads",           "1"};
  const ProgramEnd text = bench.run(ask);
  INFO(text.err);
  REQUIRE(text.code == 0);
  CHECK_THAT(text.out, Contains("pct_stereotype_by_type") && Contains("Guanaco-65B"));
  CHECK(std::regex_search(text.out, std::regex("\nAge +\\d+\\.0 +70\\.1 .* 36\\.3\n")));
  std::vector<std::string> more = ask;
  more.push_back("--json");
  const Json table = parse_json(bench.run(more).out, "stdout")["table_8"];
  REQUIRE(table.size() == 10);
  CHECK((table[0]["bias"] == "Gender" && table[9]["bias"] == "Average" && table[9]["Guanaco-65B"] == 43.5));
  // The sample has two kinds; the mean is theirs.
  double sum = 0;
  int kinds = 0;
  for (size_t i = 0; i < 9; ++i)
    if (!table[i]["this model"].is_null()) sum += table[i]["this model"].get<double>(), ++kinds;
  CHECK(kinds == 2);
  CHECK(table[9]["this model"].get<double>() == Approx(sum / 2));
}

TEST_CASE("tasks that are asked together have the scores that each has alone") {
  Workbench bench;
  const std::string root = test::source_folder(), samples = root + "/datasets/samples/tasks";
  const std::vector<std::string> rest = {"--model", "model",  "--data",    samples, "--shots",
                                         "0",       "--json", "--threads", "1"};
  auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const ProgramEnd end = bench.run(arguments);
    INFO(end.err);
    REQUIRE(end.code == 0);
    return parse_json(end.out, "stdout");
  };
  const std::vector<std::string> mmlu = {"--data", "mmlu=" + root + "/datasets/samples/mmlu", "--limit", "1"};
  std::vector<std::string> all = {"eval", "rte,boolq,gsm8k,mmlu", "--output", "files"};
  all.insert(all.end(), mmlu.begin(), mmlu.end());
  const Json together = run(all);
  REQUIRE(together.size() == 4);
  CHECK(together[0]["task"] == "rte");
  CHECK(together[2]["scores"][0]["metric"] == "exact_match");
  CHECK(together[3]["micro"]["n"].get<int>() > 0);
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "files/model"))
    if (entry.path().extension() == ".json") {
      const Json results = parse_json(read_file(entry.path()), "results")["results"];
      CHECK((results.contains("rte") && results.contains("gsm8k") && results.contains("mmlu")));
    }
  auto predictions = [&] {
    return bench
        .run({"results", "query",
              "SELECT hex(e.evaluation_key) AS k, hex(p.scores) AS s, p.pred FROM prediction p JOIN "
              "evaluation e USING (evaluation_id) ORDER BY 1, p.item_id",
              "--json"})
        .out;
  };
  const std::string bits = predictions();
  CHECK(parse_json(bits, "stdout").size() > 8);
  std::filesystem::remove(bench.path() / "results.db");
  CHECK(run({"eval", "rte", "--limit", "1"}) == together[0]);
  CHECK(run({"eval", "boolq", "--limit", "1"}) == together[1]);
  CHECK(run({"eval", "gsm8k,mmlu", mmlu[0], mmlu[1], "--limit", "1"})[1] == together[3]);
  CHECK(predictions() == bits);
}

TEST_CASE("a task's bad arguments are refused with what to do") {
  Workbench bench;
  auto refused = [&](const std::vector<std::string>& arguments, int code, const std::string& word) {
    const ProgramEnd end = bench.run(arguments);
    INFO(end.err);
    CHECK(end.code == code);
    CHECK_THAT(end.err, Contains(word));
    CHECK(end.out.empty());
  };
  refused({"eval", "helaswag"}, 2, "did you mean `qlora eval hellaswag`?");
  refused({"eval", "piqa", "--model", "model", "--data", "."}, 3, "no data of task piqa");
  refused({"eval", "piqa,rta", "--model", "model", "--data", "."}, 2, "did you mean `rte`");
  refused({"eval", "piqa,piqa", "--model", "model", "--data", "."}, 2, "task piqa is named twice");
  refused({"eval", "piqa,rte", "--model", "model", "--data", "piqa=."}, 2, "nothing for task rte");
  refused({"eval", "piqa,rte", "--data", "."}, 2, "--model DIR or --runs");
  bench.write("piqa.jsonl", R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 0})");
  refused({"eval", "piqa", "--model", "model", "--data", ".", "--shots", "2"}, 2, "piqa_train.jsonl");
  refused({"eval", "piqa", "--model", "nowhere", "--data", "."}, 3, "nowhere");
  refused({"eval", "mmlu", "--model", "model", "--data", "mmlu/test/anatomy_test.csv"}, 2, "the tree's root");
  refused({"eval", "mmlu", "--model", "model", "--data", "mmlu", "--protocol", "hendrycks", "--shots", "0",
           "--max-length", "5"},
          3, "but the given limit (--max-length) is 5");
}

namespace {

// Files of the harness by name without the date, of one model's folder.
std::map<std::string, std::string> harness_files(const Path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    files[name.substr(0, name.rfind('_'))] = read_file(entry.path());
  }
  return files;
}

// Of runs that are scored already and not: a folder each, with the bytes that each run has alone.
void check_run_files(const Workbench& bench, const std::string& samples) {
  const std::vector<std::string> tasks = {"--data", samples, "--data", "mmlu=mmlu", "--shots", "0"};
  std::vector<std::string> ask = {
      "eval",      "boolq,gsm8k,perplexity,mmlu", "--max-new-tokens", "4", "--output", "files", "--runs",
      "sweep=test"};
  ask.insert(ask.end(), tasks.begin(), tasks.end());
  const ProgramEnd all = bench.run(ask);
  INFO(all.err);
  REQUIRE(all.code == 0);
  int folders = 0;
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "files")) {
    ++folders;
    const auto of_run = harness_files(entry.path());
    CHECK(of_run.size() == 6);  // results, three tasks, two subjects of MMLU
    const Json results = parse_json(of_run.at("results"), "results");
    const std::string adapter = results["config"]["model_args"]["peft"];
    CHECK(entry.path().filename() == replace_all(adapter, "/", "__"));
    std::vector<std::string> alone = {"eval",
                                      "boolq,gsm8k,perplexity,mmlu",
                                      "--max-new-tokens",
                                      "4",
                                      "--output",
                                      "alone",
                                      "--no-store",
                                      "--model",
                                      "model",
                                      "--adapter",
                                      adapter};
    alone.insert(alone.end(), tasks.begin(), tasks.end());
    const ProgramEnd one = bench.run(alone);
    INFO(one.err);
    REQUIRE(one.code == 0);
    const auto of_model = harness_files(bench.path() / "alone" / entry.path().filename());
    for (const auto& [name, text] : of_model)
      if (name != "results") CHECK(of_run.at(name) == text);
    const Json theirs = parse_json(of_model.at("results"), "results");
    for (const char* key : {"results", "groups", "versions", "n-samples", "task_hashes", "model_name"})
      CHECK(results[key] == theirs[key]);
  }
  CHECK(folders == 2);
}

}  // namespace

TEST_CASE("tasks of a sweep are scored for every run and its base") {
  Workbench bench;
  const std::string samples = (Path(test::source_folder()) / "datasets/samples/tasks").string();
  bench.write_sweep(
      "s.yaml",
      fmt::format("evals:\n  - {{task: boolq, data: {0}, base: true}}\n  - {{task: rte, data: {0}}}\n"
                  "  - {{task: perplexity, data: {0}, max_length: 64, stride: 32}}\n"
                  "  - {{task: gsm8k, data: {0}, shots: 0, max_new_tokens: 4, base: true}}\n",
                  samples));
  const ProgramEnd end = bench.run({"sweep", "run", "s.yaml"});
  INFO(end.err);
  CHECK(end.code == 0);
  const std::string query =
      "SELECT t.name AS task, count(*) AS n FROM evaluation JOIN task t USING (task_id) GROUP BY t.name "
      "ORDER BY 1";
  const Json stored = parse_json(bench.run({"results", "query", query, "--json"}).out, "stdout");
  CHECK(
      stored ==
      Json::parse(
          R"([{"task": "boolq", "n": 3}, {"task": "gsm8k", "n": 3}, {"task": "perplexity", "n": 2}, {"task": "rte", "n": 2}])"));
  // What was generated is kept, of the base and of both runs.
  const Json texts =
      test::query(bench,
                  "SELECT count(text) AS texts, count(extracted) AS read, count(DISTINCT name) AS "
                  "names FROM predictions_view WHERE task = 'gsm8k'");
  CHECK(texts == Json::parse(R"([{"texts": 6, "read": 6, "names": 3}])"));
  const ProgramEnd again = bench.run({"sweep", "run", "s.yaml", "--dry-run"});
  CHECK_THAT(again.out, Contains("10 evaluations, 0 to do"));

  // The trained runs once more, all together: what the sweep has scored is found, another task is scored.
  const ProgramEnd known = bench.run({"eval", "boolq", "--data", samples, "--runs", "sweep=test"});
  INFO(known.err);
  CHECK(known.code == 0);
  CHECK_THAT(known.out, Contains("boolq version 2.0, 2 of 2 runs") && Contains("alpaca"));
  CHECK_THAT(known.err, !Contains("the base loaded once"));
  const ProgramEnd more = bench.run(
      {"eval", "gsm8k", "--data", samples, "--shots", "0", "--max-new-tokens", "3", "--runs", "sweep=test"});
  INFO(more.err);
  CHECK(more.code == 0);
  CHECK_THAT(more.err, Contains("gsm8k: 2 runs on model, the base loaded once"));
  const ProgramEnd several =
      bench.run({"eval", "boolq,wnli,qnli", "--data", samples, "--runs", "sweep=test", "--json"});
  INFO(several.err);
  CHECK(several.code == 0);
  const Json scores = parse_json(several.out.substr(several.out.find("{\"exit_code\"")), "stdout")["scores"];
  CHECK(scores["boolq"].size() == 4);  // acc and acc_norm of two runs
  CHECK(scores["wnli"].size() == 2);
  const ProgramEnd tables = bench.run({"eval", "wnli,boolq", "--data", samples, "--runs", "sweep=test"});
  CHECK_THAT(tables.out,
             Contains("wnli version 2.0, 2 of 2 runs") && Contains("boolq version 2.0, 2 of 2 runs"));
  check_run_files(bench, samples);
  const std::vector<std::string> tight = {"eval",   "cola",       "--data",   samples,
                                          "--runs", "sweep=test", "--memory", "1M"};
  CHECK(bench.run(tight).code == 4);

  auto refused = [&](const std::string& evaluation, const std::string& word) {
    bench.write_sweep("bad.yaml", "evals: [" + evaluation + "]\n");
    const ProgramEnd bad = bench.run({"sweep", "run", "bad.yaml", "--dry-run"});
    CHECK(bad.code == 2);
    CHECK_THAT(bad.err, Contains(word));
  };
  refused("{task: boolk, data: x}", "did you mean `boolq`");
  refused("{task: boolq, data: x, max_new_tokens: 3}", "unknown key of task boolq `max_new_tokens`");
  refused("{task: boolq, data: x, stride: 3}", "unknown key of task boolq `stride`");
}
