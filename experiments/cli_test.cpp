// The program as its users meet it: outputs, exit codes, and what it says about bad input.
#include <sys/mount.h>
#include <fstream>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/io/gguf_test_file.h"
#include "experiments/config.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// Checks the exit code, that stderr says all of `words`, and that nothing was written to stdout.
void check_refused(const Workbench& bench, const std::vector<std::string>& arguments, int code,
                   const std::vector<std::string>& words) {
  ProgramEnd end = bench.run(arguments);
  INFO(fmt::format("{}\n{}", fmt::join(arguments, " "), end.err));
  CHECK(end.code == code);
  for (const std::string& word : words) CHECK_THAT(end.err, Contains(word));
  CHECK(end.out.empty());
}

Json json_of(const Workbench& bench, std::vector<std::string> arguments) {
  arguments.push_back("--json");
  ProgramEnd end = bench.run(arguments);
  INFO(fmt::format("{}\n{}", fmt::join(arguments, " "), end.err));
  CHECK(end.code == 0);
  return parse_json(end.out, "stdout");
}

const std::string kJudgments = "{\"question_id\": 1, \"score\": 1}\n{\"question_id\": 2, \"score\": 3}\n";

}  // namespace

TEST_CASE("the program explains itself") {
  Workbench bench;
  CHECK_THAT(bench.run({"version"}).out, Contains("qlora 0."));
  CHECK(json_of(bench, {"version"})["commit"].is_string());
  CHECK_THAT(bench.run({"doctor"}).out, Contains("backends") && Contains("reference") && Contains("SQLite") &&
                                            Contains(best_compute_dtype() + " unless told otherwise: this"));
  CHECK(json_of(bench, {"doctor"})["backends"].size() >= 2);
  CHECK(json_of(bench, {"doctor"})["compute_dtype"] == best_compute_dtype());
  CHECK_THAT(bench.run({"doctor", "--options"}).out, Contains("lora_target_modules"));
  for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{{},
                                                                                    {"sweep", "run"},
                                                                                    {"train"},
                                                                                    {"results", "query"},
                                                                                    {"elo", "compute"},
                                                                                    {"elo", "matrix"},
                                                                                    {"elo", "plan"},
                                                                                    {"elo", "table"},
                                                                                    {"eval", "mmlu"},
                                                                                    {"generate"},
                                                                                    {"chat"},
                                                                                    {"model", "import"}}) {
    std::vector<std::string> words = verb;
    words.push_back("-h");
    ProgramEnd end = bench.run(words);
    CHECK(end.code == 0);
    CHECK_THAT(end.out, Contains("Examples:"));
    CHECK(std::count(end.out.begin(), end.out.end(), '\n') <= 40);
  }
  for (const char* group : {"eval", "elo", "judge", "results", "sweep", "model"}) {
    const std::string help = bench.run({group, "-h"}).out;
    CHECK_THAT(help, Contains(fmt::format("Examples:\n  qlora {} ", group)) && Contains("5 a judge") &&
                         Contains("143 stopped"));
  }
  check_refused(bench, {"swep", "run"}, 2, {"did you mean `qlora sweep`?"});
  check_refused(bench, {"sweep", "rum"}, 2, {"did you mean", "run"});
  check_refused(bench, {"train"}, 2, {"file"});
}

TEST_CASE("a sweep is described before it runs and shown after it") {
  Workbench bench;
  bench.write("A-vs-B-gpt-4-reviewer-threeclass.jsonl", kJudgments);
  bench.write_sweep("s.yaml",
                    "gradient_checkpointing: auto\n"
                    "evals:\n  - {task: loss, at: [start, end]}\n  - {task: mmlu, data: mmlu, shots: 1, "
                    "limit: 2, base: true}\n"
                    "tournaments: [{name: t, files: '*-threeclass.jsonl', k: 4, orders: 50}]\n");
  ProgramEnd dry = bench.run({"sweep", "run", "s.yaml", "--dry-run"});
  INFO(dry.err);
  CHECK(dry.code == 0);
  CHECK_THAT(dry.out,
             Contains("to train") && Contains("MiB") &&
                 Contains("2 runs, 2 to train; 7 evaluations, 7 to do") &&
                 Contains("gradient_checkpointing auto: none for 2 runs together (none fits 2 of 2"));
  CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));
  CHECK_FALSE(std::filesystem::exists(bench.path() / "out"));
  Json plan = json_of(bench, {"sweep", "run", "s.yaml", "--dry-run"});
  CHECK(plan["runs"].size() == 2);
  CHECK(plan["runs"][0]["memory"].get<int64_t>() > 100'000);
  REQUIRE(plan["packs"].size() == 1);
  CHECK((plan["packs"][0]["runs"].size() == 2 && plan["packs"][0]["gradient_checkpointing"] == "none"));

  ProgramEnd run = bench.run({"sweep", "run", "s.yaml", "--json"});
  INFO(run.err);
  REQUIRE(run.code == 0);
  std::vector<Json> lines;
  for (size_t begin = 0, end; (end = run.out.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(parse_json(run.out.substr(begin, end - begin), "stdout"));
  CHECK(lines.front()["type"] == "launch");
  CHECK(lines.back()["type"] == "done");
  CHECK(lines.back()["leaderboard"].size() == 3);
  CHECK(lines.back()["ratings"]["t"].size() == 2);
  Json attempts = json_of(bench, {"results", "query", "SELECT seconds, peak_bytes, exit_code FROM attempt"});
  REQUIRE(attempts.size() == 2);
  for (const Json& attempt : attempts) {
    CHECK(attempt["seconds"] > 0);
    CHECK(attempt["peak_bytes"] > 1'000'000);
    CHECK(attempt["exit_code"] == 0);
  }

  Json board = json_of(bench, {"results", "leaderboard", "--sweep", "test"});
  CHECK(board.size() == 3);  // two runs and their base
  std::string name = "alpaca";
  Json run_json = json_of(bench, {"results", "show", name});
  CHECK(run_json["state"] == "finished");
  CHECK(run_json["curve"].size() == 6);
  CHECK(run_json["config"]["compute_dtype"] == best_compute_dtype());
  CHECK(run_json["config"]["dataset_format"] == "alpaca");
  CHECK(run_json["config"]["gradient_checkpointing"] == "auto");
  CHECK(json_of(bench, {"results", "query", "SELECT count(*) AS n FROM prediction"})[0]["n"] == 12);
  CHECK(json_of(bench, {"sweep", "status", "test"}).size() == 2);
  check_refused(bench, {"results", "query", "DELETE FROM run"}, 2, {"may only read"});
  check_refused(bench, {"results", "show", "alpaka"}, 2, {"did you mean `alpaca`?"});
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml"}).out,
             Contains("What to try next") && Contains("tournament t"));

  std::string adapter;
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "out" / "test"))
    if (entry.path().filename().string().ends_with("-alpaca")) adapter = (entry.path() / "adapter").string();
  Json scored = json_of(bench, {"eval", "mmlu", "--model", "model", "--adapter", adapter, "--data", "mmlu",
                                "--shots", "1", "--limit", "2"});
  CHECK(scored["quant"] == "nf4+dq");
  CHECK(scored["subject"] == "alpaca");
  // The sweep had scored it already: the same evaluation under the same key.
  CHECK(json_of(bench, {"results", "query", "SELECT count(*) AS n FROM evaluation"})[0]["n"] == 7);
  // A checkpoint, or the adapter on another base, is not what the run is known for.
  std::string checkpoint = (Path(adapter).parent_path() / "checkpoint-4").string();
  for (const std::vector<std::string>& other :
       {std::vector<std::string>{checkpoint, "nf4+dq"}, {adapter, "none"}}) {
    Json unknown = json_of(bench, {"eval", "mmlu", "--model", "model", "--adapter", other[0], "--quant",
                                   other[1], "--data", "mmlu", "--shots", "1", "--limit", "2"});
    CHECK(unknown["subject"] != "alpaca");
  }
  CHECK(json_of(bench, {"results", "query", "SELECT count(*) AS n FROM evaluation"})[0]["n"] == 9);
  Json text = json_of(bench, {"generate", "--model", "model", "--adapter", adapter, "--prompt", "Spell",
                              "--greedy", "--max-new-tokens", "5"});
  CHECK(text["ids"].size() <= 5);
  CHECK_FALSE(text["ids"].empty());
}

TEST_CASE("one run is trained with options of the command line") {
  Workbench bench;
  bench.write(
      "r.yaml",
      "model_name_or_path: model\ndataset: alpaca.json\nmax_steps: 2\neval_dataset_size: 4\nlora_r: 64\n");
  ProgramEnd end = bench.run({"train", "r.yaml", "--lora_r", "2", "--output-dir=elsewhere",
                              "--gradient_accumulation_steps", "1", "--overlong", "truncate"});
  INFO(end.err);
  CHECK(end.code == 0);
  CHECK(json_of(bench, {"results", "query", "SELECT lora_r FROM leaderboard"})[0]["lora_r"] == 2);
  CHECK(std::filesystem::exists(bench.path() / "elsewhere" / "r"));
  ProgramEnd dry = bench.run({"train", "r.yaml", "--dry-run"});
  CHECK_THAT(dry.out, Contains("optim: adamw_torch  # default") && Contains("max_steps: 2\n"));
  check_refused(bench, {"train", "r.yaml", "--lora_rnak", "2"}, 2, {"unknown key `lora_rnak`", "lora_rank"});
  bench.write_sweep("s.yaml");
  check_refused(bench, {"train", "s.yaml"}, 2, {"describes 2 runs"});
}

TEST_CASE("a sweep keeps the compute type that auto stood for when it was first declared") {
  Workbench bench;
  bench.write_sweep("s.yaml", "evals: [{task: loss, at: end}]\n");
  const std::string best = best_compute_dtype(), other = best == "f32" ? "bf16" : "f32";
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).out,
             Contains("resolved: compute_dtype " + best + " (auto: this processor has "));
  CHECK_THAT(
      bench.run({"sweep", "run", "s.yaml", "--dry-run", "--backend", "cuda-emulated", "--memory", "2G"}).out,
      Contains("resolved: compute_dtype bf16 (auto: a GPU multiplies bf16)"));
  // As another machine would have declared it.
  ProgramEnd run = bench.run({"sweep", "run", "s.yaml", "--set", "compute_dtype=" + other});
  INFO(run.err);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.err, Contains("resolved: compute_dtype " + other + ", "));
  CHECK_THAT(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).out,
             Contains("resolved: compute_dtype " + other + " (auto: as this sweep was first declared)") &&
                 Contains("0 to train"));
  // Asked for by name, the other type makes runs of its own, and their losses differ by little.
  REQUIRE(bench.run({"sweep", "run", "s.yaml", "--set", "compute_dtype=" + best}).code == 0);
  std::map<std::string, std::vector<double>> losses;
  for (const Json& row : json_of(bench, {"results", "leaderboard"}))
    if (!row["loss_after"].is_null()) losses[row["name"]].push_back(row["loss_after"]);
  REQUIRE(losses.size() == 2);
  for (const auto& [name, both] : losses) {
    REQUIRE(both.size() == 2);
    CHECK(both[0] != both[1]);
    CHECK(both[0] == Approx(both[1]).epsilon(5e-3));
  }
}

TEST_CASE("scores in f32 and in bf16 have keys of their own and an adapter is scored as it was trained") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  REQUIRE(bench.run({"sweep", "run", "s.yaml", "--set", "compute_dtype=bf16"}).code == 0);
  std::string adapter;
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "out" / "test"))
    if (entry.path().filename().string().ends_with("-alpaca")) adapter = (entry.path() / "adapter").string();
  auto key = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"eval",   "mmlu", "--model", "model",
                                          "--data", "mmlu", "--shots", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json_of(bench, arguments)["key"].get<std::string>();
  };
  CHECK(key({"--compute-dtype", "f32"}) != key({"--compute-dtype", "bf16"}));
  CHECK(key({"--compute-dtype", "bf16_amx"}) != key({"--compute-dtype", "bf16"}));
  CHECK(key({}) == key({"--compute-dtype", best_compute_dtype()}));
  CHECK(key({"--backend", "cuda-emulated"}) == key({"--compute-dtype", "bf16"}));
  CHECK(key({"--adapter", adapter}) == key({"--adapter", adapter, "--compute-dtype", "bf16"}));
  CHECK(key({"--adapter", adapter}) != key({"--adapter", adapter, "--compute-dtype", "f32"}));
  const std::vector<std::string> generate = {"generate",         "--model", "model",
                                             "--prompt",         "It is",   "--greedy",
                                             "--max-new-tokens", "4",       "--compute-dtype"};
  for (const char* type : {"f32", "bf16", "bf16_amx", "auto"}) {
    std::vector<std::string> arguments = generate;
    arguments.emplace_back(type);
    CHECK(json_of(bench, arguments)["ids"].size() > 0);
  }
  std::vector<std::string> wrong = generate;
  wrong.emplace_back("fp8");
  check_refused(bench, wrong, 2, {"auto, f32, bf16"});
}

TEST_CASE("bad configurations are refused with their place and nothing is written") {
  Workbench bench;
  bench.write("key.yaml", "model_name_or_path: model\ndataset: alpaca.json\nlora_rnak: 8\n");
  check_refused(bench, {"sweep", "run", "key.yaml"}, 2,
                {"key.yaml:3:1: unknown key `lora_rnak`; did you mean `lora_rank`?"});
  bench.write("twice.yaml", "model_name_or_path: model\nseed: 1\nseed: 2\n");
  check_refused(bench, {"sweep", "run", "twice.yaml"}, 2, {"twice.yaml:3:1: key `seed` is given twice"});
  bench.write("fp16.yaml", "model_name_or_path: model\ndataset: alpaca.json\ncompute_dtype: fp16\n");
  check_refused(bench, {"sweep", "run", "fp16.yaml"}, 2, {"fp16.yaml:3:16", "it can: auto, f32, bf16"});
  check_refused(bench, {"sweep", "run", "none.yaml"}, 2, {"none.yaml"});
  bench.write_sweep("s.yaml");
  check_refused(bench, {"sweep", "run", "s.yaml", "--backend", "avx3"}, 2, {"avx3"});
  check_refused(bench, {"sweep", "run", "s.yaml", "--db", "nowhere/r.db"}, 2, {"no folder nowhere"});
  check_refused(bench, {"eval", "mmlu", "--model", "nowhere", "--data", "mmlu"}, 3, {"nowhere"});
  bench.write("preset.yaml", read_file(bench.path() / "s.yaml") +
                                 "tournaments: [{name: p, preset: qlora-vicuna-gpt4, votes: majority}]\n");
  check_refused(bench, {"sweep", "run", "preset.yaml"}, 2, {"give the files"});
  check_refused(bench, {"sweep", "run", "s.yaml", "--memory", "lots"}, 2, {"`lots`", "12G"});
  check_refused(bench, {"sweep", "run", "s.yaml", "--memory", "100K"}, 4, {"needs", "--memory"});
  ProgramEnd dry = bench.run({"sweep", "run", "s.yaml", "--memory", "100K", "--dry-run"});
  CHECK(dry.code == 4);
  CHECK_THAT(dry.err, Contains("needs") && Contains("--memory"));
  CHECK_THAT(dry.out, Contains("may be used"));
  check_refused(bench, {"sweep", "run", "s.yaml", "--set", "lora_target_modules=[q_prj]"}, 2, {"q_proj"});
  check_refused(bench, {"sweep", "run", "s.yaml", "--set", "model_name_or_path=nowhere"}, 3, {"nowhere"});
  check_refused(bench, {"sweep", "run", "s.yaml", "--set", "dataset=nowhere.json"}, 3, {"nowhere.json"});
  CHECK_FALSE(std::filesystem::exists(bench.path() / "out"));
  CHECK_FALSE(std::filesystem::exists(bench.path() / "results.db"));
}

TEST_CASE("damaged models are refused") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  std::filesystem::copy(bench.path() / "model", bench.path() / "bare");
  std::filesystem::remove(bench.path() / "bare" / "tokenizer.json");
  check_refused(bench, {"sweep", "run", "s.yaml", "--set", "model_name_or_path=bare"}, 3,
                {"bare", "tokenizer"});
  check_refused(bench, {"generate", "--model", "bare", "--prompt", "x", "--greedy"}, 3, {"tokenizer"});
  std::filesystem::copy(bench.path() / "model", bench.path() / "cut");
  std::filesystem::resize_file(bench.path() / "cut" / "model.safetensors", 5000);
  check_refused(bench, {"generate", "--model", "cut", "--prompt", "x", "--greedy"}, 3, {"model.safetensors"});
  check_refused(bench, {"sweep", "run", "s.yaml", "--set", "model_name_or_path=cut"}, 3,
                {"model.safetensors"});
  bench.write("bad.gguf", "no gguf at all");
  check_refused(bench, {"model", "import", "bad.gguf", "imported"}, 3, {"bad.gguf"});
  GgufBuilder gguf;
  gguf.text("general.architecture", "llama").entry("token_embd.weight", {1, 32}, 200, 0);
  bench.write("odd.gguf", gguf.build());
  check_refused(bench, {"model", "import", "odd.gguf", "imported"}, 3,
                {"odd.gguf", "token_embd.weight", "200"});
  CHECK_FALSE(std::filesystem::exists(bench.path() / "imported"));
  check_refused(bench, {"generate", "--model", "model", "--prompt", "x", "--adapter", "model"}, 3,
                {"adapter_config.json"});
  check_refused(bench, {"generate", "--model", "model", "--prompt", "x", "--quant", "nf3"}, 2,
                {"did you mean `nf4`?"});
  check_refused(bench, {"generate", "--model", "model", "--prompt", "x", "--backend", "avx3"}, 2, {"avx3"});
}

TEST_CASE("bad data is refused before anything is trained") {
  Workbench bench;
  bench.write_sweep("s.yaml", "evals: [{task: mmlu, data: mmlu, shots: 0}]\n");
  bench.write("mmlu/test/anatomy_test.csv", "Q,a,b,c,d,A\nonly,five,columns,here,B\n");
  check_refused(bench, {"sweep", "run", "s.yaml"}, 3, {"anatomy_test.csv:2"});
  check_refused(bench, {"eval", "mmlu", "--model", "model", "--data", "mmlu", "--shots", "0"}, 3,
                {"anatomy_test.csv:2"});
  check_refused(bench,
                {"eval", "mmlu", "--model", "model", "--shots", "0", "--data",
                 test::source_folder() + "/eval/tasks/fixtures/mmlu_wrong_types.parquet"},
                3, {"mmlu_wrong_types.parquet: row 1", "`choices` must be a list of 4 texts"});
  // A question that no context has room for.
  bench.write("mmlu/test/anatomy_test.csv", std::string(5000, 'q') + ",a,b,c,d,A\n");
  check_refused(bench, {"sweep", "run", "s.yaml"}, 3, {"anatomy"});
  bench.write_sweep("t.yaml", "tournaments: [{name: t, files: '*-threeclass.jsonl'}]\n");
  check_refused(bench, {"sweep", "run", "t.yaml"}, 3, {"threeclass.jsonl"});
  bench.write("A-vs-B-gpt-4-reviewer-threeclass.jsonl", kJudgments + "{\"question_id\": 3}\n");
  check_refused(bench, {"sweep", "run", "t.yaml"}, 3, {"threeclass.jsonl", "3", "score"});
  check_refused(bench, {"elo", "compute", "A-vs-B-gpt-4-reviewer-threeclass.jsonl"}, 3, {"score"});
  // Without an EOS an empty answer has no token that could be a label.
  std::string config = read_file(bench.path() / "model" / "tokenizer_config.json");
  Json tokenizer = parse_json(config, "tokenizer_config.json");
  tokenizer.erase("eos_token");
  bench.write("model/tokenizer_config.json", tokenizer.dump());
  std::string masked;
  for (int i = 0; i < 20; ++i) masked += "{\"input\": \"something\", \"output\": \"\"}\n";
  bench.write("masked.jsonl", masked);
  bench.write_sweep("u.yaml");
  check_refused(bench, {"sweep", "run", "u.yaml", "--set", "dataset=masked.jsonl"}, 3,
                {"masked.jsonl", "label"});
  CHECK_FALSE(std::filesystem::exists(bench.path() / "out"));
}

TEST_CASE("a store of a newer version or another file is refused") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  bench.write("other.db", std::string(4096, 'x'));
  check_refused(bench, {"results", "leaderboard", "--db", "other.db"}, 3, {"other.db"});
  check_refused(bench, {"results", "leaderboard", "--db", "missing.db"}, 3, {"missing.db"});
  REQUIRE(
      bench.run({"elo", "compute", "--preset", "qlora-vicuna-gpt4", "--orders", "5", "--name", "p"}).code ==
      0);
  // user_version stands at offset 60 of an SQLite file, big-endian.
  std::fstream file(bench.path() / "results.db", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(60);
  file.write("\0\0\3\347", 4);
  file.close();
  check_refused(bench, {"sweep", "run", "s.yaml"}, 3, {"results.db", "newer"});
  check_refused(bench, {"results", "leaderboard"}, 3, {"newer"});
  CHECK_FALSE(std::filesystem::exists(bench.path() / "out"));
}

TEST_CASE("an empty file is a store that is not filled yet") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  bench.write("results.db", "");
  CHECK(bench.run({"sweep", "run", "s.yaml", "--dry-run"}).code == 0);
  CHECK(bench.run({"sweep", "run", "s.yaml", "--set", "max_steps=1"}).code == 0);
  CHECK(json_of(bench, {"sweep", "status", "test"}).size() == 2);
}

TEST_CASE("a tournament shows its own ratings whatever it was called or given before") {
  Workbench bench;
  bench.write("A-vs-B-gpt-4-reviewer-threeclass.jsonl", kJudgments);
  auto best = [&](const std::string& name, int k) {
    bench.write_sweep("s.yaml", fmt::format("tournaments: [{{name: {}, files: '*-threeclass.jsonl', k: {}, "
                                            "orders: 5}}]\n",
                                            name, k));
    ProgramEnd end = bench.run({"sweep", "run", "s.yaml", "--set", "max_steps=1", "--json"});
    INFO(end.err);
    REQUIRE(end.code == 0);
    std::string last = end.out.substr(end.out.rfind('\n', end.out.size() - 2) + 1);
    return parse_json(last, "done")["ratings"][name][0]["rating"].get<double>();
  };
  double small = best("t", 4), large = best("t", 32);
  CHECK(small < large);
  CHECK(best("t", 4) == small);
  CHECK(best("renamed", 32) == large);
}

TEST_CASE("a full disk ends a sweep with an error and the next start goes on") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  Path out = bench.path() / "out";
  std::filesystem::create_directories(out);
  if (::mount("tmpfs", out.c_str(), "tmpfs", 0, "size=48k") != 0) {
    std::printf("SKIPPED: cannot mount a small file system (not root)\n");
    return;
  }
  ProgramEnd end = bench.run({"sweep", "run", "s.yaml"});
  INFO(end.err);
  CHECK(end.code == 1);
  CHECK_THAT(end.err, Contains("No space left on device"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(out))
    CHECK_THAT(entry.path().string(), !Contains(".tmp"));
  ::umount2(out.c_str(), MNT_DETACH);
  CHECK(bench.run({"sweep", "run", "s.yaml"}).code == 0);
}

TEST_CASE("a run that fails is told and not repeated without being asked to") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  std::vector<std::string> command = {
      "sweep", "run", "s.yaml", "--set", "learning_rate=1e38", "--set", "max_grad_norm=0"};
  ProgramEnd end = bench.run(command);
  INFO(end.err);
  CHECK(end.code == 1);
  CHECK_THAT(end.err, Contains("nan_loss"));
  ProgramEnd again = bench.run(command);
  CHECK(again.code == 1);
  CHECK_THAT(again.err, Contains("failed before") && Contains("--retry-failed") && Contains("0 to train"));
}

TEST_CASE("published tournaments are rated from their counts") {
  Workbench bench;
  Json json = json_of(bench, {"elo", "compute", "--preset", "qlora-vicuna-gpt4", "--orders", "200"});
  CHECK(json["ratings"].size() == 8);
  CHECK(json["k"] == 4.0);
  CHECK(json["ratings"][0]["ci_lo"].is_null());
  CHECK_THAT(bench.run({"elo", "compute", "--preset", "qlora-vicuna-gpt4", "--orders", "5"}).out,
             Contains("gpt-4") && !Contains("ci_lo"));
  check_refused(bench, {"elo", "compute", "--preset", "qlora-vicuna-gpt5"}, 2, {"did you mean"});
  check_refused(bench, {"elo", "compute", "--preset", "qlora-vicuna-gpt4", "--bootstrap", "5"}, 2,
                {"prompts"});
  check_refused(bench, {"elo", "compute"}, 3, {"results.db", "give judgment files"});
  check_refused(bench, {"elo", "matrix", "--preset", "qlora-vicuna-gpt4", "--parser", "threeclass-2"}, 2,
                {"stored votes"});
  check_refused(bench, {"elo", "compute", "--preset", "qlora-oa-gpt4"}, 2, {"judgment files", "42 files"});
}

TEST_CASE("ratings by other models, their figures and their plans") {
  Workbench bench;
  std::string published = "qlora-vicuna-gpt4";
  Json bt = json_of(bench, {"elo", "compute", "--preset", published, "--model", "bt", "--anchor", "gpt4=1348",
                            "--svg", "ratings.svg"});
  CHECK(bt["model"] == "bt");
  CHECK(bt["ratings"][0]["rating"] == Approx(1348));
  CHECK(bt["ratings"][1]["rating"] == Approx(1348 - 1366.3 + 1020.4).margin(0.2));
  CHECK(bt["ratings"][1]["ci_lo"].is_null());
  CHECK_THAT(read_file(bench.path() / "ratings.svg"), Contains("guanaco-65b"));
  Json battle = json_of(bench, {"elo", "compute", "--preset", published, "--model", "davidson", "--position",
                                "judge", "--cluster", "battle", "--bootstrap", "50"});
  CHECK(battle["terms"].size() == 2);
  CHECK(battle["terms"][0]["value"] == Approx(145).margin(1));
  CHECK(battle["ratings"][0]["rank_hi"] == 1);
  Json matrix = json_of(bench, {"elo", "matrix", "--preset", published, "--svg", "heat.svg"});
  CHECK(matrix["pairs"].size() == 56);
  CHECK(matrix["systems"][0] == "gpt-4");
  CHECK(matrix["pairs"][0]["net"] == Approx(0.71).margin(0.005));
  CHECK_THAT(bench.run({"elo", "matrix", "--preset", published}).out,
             Contains("0.71") && Contains("(wins - losses)"));
  Json plan = json_of(bench, {"elo", "plan", "--preset", published, "--new", "mine", "--count", "3"});
  CHECK(plan["matches"].size() == 3);
  CHECK((plan["matches"][0]["first"] == "mine" || plan["matches"][0]["second"] == "mine"));
  CHECK(plan["deviation_after"] < plan["deviation_before"]);
  CHECK(json_of(bench, {"elo", "presets"}).size() == 5);

  Json table = json_of(bench, {"elo", "table", "--preset", "qlora", "--orders", "2000"});
  CHECK(table["columns"].size() == 3);
  CHECK(table["notes"].size() == 3);  // two transposed cells, and no files for OA
  for (size_t column : {0, 1})
    for (const Json& cell : table["columns"][column]["cells"])
      CHECK(cell["ours"] == Approx(cell["meant"].get<double>()).margin(1.5));
  std::string text = bench.run({"elo", "table", "--preset", "qlora", "--orders", "50"}).out;
  CHECK_THAT(text, Contains("916*") && Contains("913*") && Contains("each other's place"));
  check_refused(bench, {"elo", "table", "--preset", "qlra"}, 2, {"did you mean `qlora`"});
  check_refused(bench, {"elo", "compute", "--preset", published, "--position", "judge"}, 2, {"--model bt"});
  for (const auto& [option, value] : {std::pair("--k", "4"), {"--orders", "10000"}, {"--rounds", "shuffle"}})
    check_refused(bench, {"elo", "compute", "--preset", published, "--model", "bt", option, value}, 2,
                  {"bt has none of them", "--model elo"});
  check_refused(bench, {"elo", "compute", "--preset", published, "--model", "bt", "--anchor", "bart=1"}, 2,
                {"did you mean `bard`"});
  check_refused(bench, {"elo", "compute", "--preset", published, "--model", "bt", "--anchor", "bard"}, 2,
                {"SYSTEM="});
}

TEST_CASE("a win graph that is not connected is named by the program") {
  Workbench bench;
  std::string rows;
  for (int i = 0; i < 5; ++i) rows += fmt::format("{{\"question_id\": {}, \"score\": 1}}\n", i);
  bench.write("A-vs-B-gpt-4-reviewer-threeclass.jsonl", rows);
  check_refused(bench, {"elo", "compute", "A-vs-B-gpt-4-reviewer-threeclass.jsonl", "--model", "bt"}, 3,
                {"not strongly connected", "B has no win"});
  Json elo = json_of(bench, {"elo", "compute", "A-vs-B-gpt-4-reviewer-threeclass.jsonl", "--orders", "5"});
  CHECK(elo["ratings"][0]["ci_lo"].is_number());
  CHECK(elo["bootstrap"] == 200);
  CHECK(json_of(bench, {"elo", "compute", "A-vs-B-gpt-4-reviewer-threeclass.jsonl", "--bootstrap",
                        "0"})["ratings"][0]["ci_lo"]
            .is_null());
}
