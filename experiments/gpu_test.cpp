// What a user of a GPU does, on the emulated one: a sweep through the program itself.
#include <fmt/format.h>
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "experiments/test_program.h"
#include "kernels/cuda/emulated/chosen.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// Three questions, a judge of few words, MMLU and held-out losses: what the quickstart does, on a tiny model.
void write_study(const Workbench& bench) {
  bench.write_questions();
  bench.write_sweep(
      "s.yaml",
      "bits: 4\nquant_type: nf4\ndouble_quant: true\n"
      "evals:\n  - {task: loss, at: [start, end]}\n"
      "  - {task: mmlu, data: mmlu, protocol: hendrycks, shots: 1, limit: 1, at: end, base: true}\n"
      "generate:\n  - {questions: questions.jsonl, template: guanaco, greedy: true, max_new_tokens: 4, base: "
      "true}\n"
      "judge:\n  - {judge: base, name: self, chat_template: guanaco, prompts: short.jsonl, max_tokens: 3}\n");
}

Json losses(const Workbench& bench, const std::string& db) {
  return query(bench,
               "SELECT name, loss_before, loss_after FROM leaderboard WHERE state = 'finished' ORDER BY name",
               db);
}

}  // namespace

TEST_CASE("a sweep learns and is scored and judged on the emulated GPU as on the processor") {
  Workbench bench;
  write_study(bench);
  for (const std::string backend : {"reference", "cuda-emulated"}) {
    const ProgramEnd end =
        bench.run({"sweep", "run", "s.yaml", "--backend", backend, "--memory", "1G", "--db", backend + ".db",
                   "--set", "output_dir=" + backend, "--set", "max_steps=2", "--set", "compute_dtype=bf16"});
    INFO(end.err);
    REQUIRE(end.code == 0);
  }
  const Json expected = losses(bench, "reference.db"), found = losses(bench, "cuda-emulated.db");
  REQUIRE(expected.size() == 2);
  REQUIRE(found.size() == 2);
  for (size_t run = 0; run < 2; ++run) {
    INFO(expected[run].dump() << " " << found[run].dump());
    CHECK(found[run]["name"] == expected[run]["name"]);
    for (const char* at : {"loss_before", "loss_after"}) {
      const double ours = found[run][at].get<double>(), theirs = expected[run][at].get<double>();
      CHECK(std::abs(ours - theirs) < 0.0015 * theirs);
    }
  }
  CHECK(query(bench, "SELECT count(*) AS n FROM votes_view WHERE judge = 'self'",
              "cuda-emulated.db")[0]["n"] == 18);
}

TEST_CASE("the quickstart, at a tiny size, runs through the program on the emulated GPU") {
  Workbench bench;
  const Path source = source_folder(), samples = source / "datasets/samples";
  for (const char* split : {"dev", "test"}) {  // one subject of MMLU
    const std::string name = fmt::format("{0}/anatomy_{0}.csv", split);
    bench.write("few/" + name, read_file(samples / "mmlu" / name));
  }
  bench.write_questions();  // with short.jsonl
  const std::string questions = read_file(samples / "questions/everyday.jsonl");
  bench.write("one.jsonl", questions.substr(0, questions.find('\n') + 1));
  // The file itself, with its limits cut: what is left of it must not have changed without this test.
  std::string text = read_file(source / "experiments/configs/quickstart.yaml");
  const std::pair<std::string, std::string> cuts[] = {
      {"model_name_or_path: .cache/qlora/models/SmolLM2-135M-Instruct", "model_name_or_path: model"},
      {"source_max_len: 192", "source_max_len: 12"},
      {"target_max_len: 128", "target_max_len: 8\noverlong: truncate"},
      {"eval_dataset_size: 32", "eval_dataset_size: 1"},
      {"per_device_train_batch_size: 4", "per_device_train_batch_size: 2"},
      {"max_steps: 20", "max_steps: 1"},
      {"data: datasets/samples/mmlu", "data: few"},
      {"shots: 5, limit: 4", "shots: 0, limit: 1"},
      {"max_new_tokens: 32", "max_new_tokens: 2"},
      {"max_tokens: 4", "max_tokens: 2"},
      {"questions: datasets/samples/questions/everyday.jsonl", "questions: one.jsonl"},
      {"prompts: datasets/samples/questions/short_judge.jsonl", "prompts: short.jsonl"},
      {"orders: 10000", "orders: 10"},
      {"  - {name: own-runs, judge: self, k: 4, orders: 10000}\n", ""},  // such a judge gives no verdict
  };
  for (const auto& [from, to] : cuts) {
    INFO(from);
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
  }
  const std::string there = "datasets/samples";
  for (size_t at = 0; (at = text.find(there, at)) != std::string::npos; at += samples.string().size())
    text.replace(at, there.size(), samples.string());
  bench.write("quickstart.yaml", text);
  const ProgramEnd end =
      bench.run({"sweep", "run", "quickstart.yaml", "--backend", "cuda-emulated", "--memory", "1G"});
  INFO(end.err);
  REQUIRE(end.code == 0);
  CHECK(query(bench, "SELECT count(*) AS n FROM leaderboard WHERE state = 'finished'")[0]["n"] == 4);
  // Ten pairs of five players, in two orders.
  CHECK(query(bench, "SELECT count(*) AS n FROM votes_view WHERE judge = 'self'")[0]["n"] == 20);
}

TEST_CASE("training on an emulated GPU that has less than was planned ends with both numbers") {
  Workbench bench;
  bench.write("r.yaml",
              "model_name_or_path: model\ndataset: alpaca.json\nlora_r: 16\nmax_steps: 1\n"
              "per_device_train_batch_size: 16\ngradient_accumulation_steps: 1\neval_dataset_size: 0\n"
              "source_max_len: 20\ntarget_max_len: 8\noverlong: truncate\ncompute_dtype: bf16\n");
  emulated::test::Chosen less("QLORA_EMULATED_MEMORY", "600000");
  // Of a single run it is the program's own end, of a sweep one of its failures.
  for (const auto& [command, code] :
       {std::pair<std::vector<std::string>, int>{{"train"}, 4}, {{"sweep", "run"}, 1}}) {
    std::vector<std::string> all = command;
    for (const char* word : {"r.yaml", "--backend", "cuda-emulated", "--memory", "1G", "--db"})
      all.emplace_back(word);
    all.push_back(command[0] + ".db");
    const ProgramEnd end = bench.run(all);
    CHECK(end.code == code);
    CHECK_THAT(end.err, Contains("no room for ") && Contains(" of 600000 bytes are free on the device") &&
                            Contains(" were planned"));
  }
}

TEST_CASE("training on the emulated GPU takes what was planned for it before the start, to three per cent") {
  Workbench bench;
  bench.write("r.yaml",
              "model_name_or_path: model\ndataset: alpaca.json\nlora_r: 16\nlora_dropout: 0.1\nmax_steps: 1\n"
              "per_device_train_batch_size: 1\ngradient_accumulation_steps: 1\neval_dataset_size: 0\n"
              "source_max_len: 20\ntarget_max_len: 8\noverlong: truncate\ncompute_dtype: bf16\n");
  const std::vector<std::string> train = {"train", "r.yaml", "--backend", "cuda-emulated"};
  auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), train.begin(), train.end());
    return bench.run(more);
  };
  struct Choice {
    std::string mode, optim, memory, batch, products;
  };
  // With so little memory cuBLAS's workspace does not fit: what the worker is told is kept to.
  for (const auto& [mode, optim, memory, batch, products] : std::vector<Choice>{
           {"none", "adamw_torch", "1024M", "1", "through cuBLAS\n"},
           {"offload", "adamw_torch", "1024M", "1", "through cuBLAS\n"},
           {"selective", "paged_adamw_32bit", "1024M", "1", "through cuBLAS\n"},
           {"block", "adamw_torch", "1024M", "4", "through cuBLAS; a block's decoded weights stay, "},
           {"block", "adamw_torch", "40M", "4",
            "by our own tiles, slower: what cuBLAS needs does not fit"}}) {
    const std::string db = mode + memory + batch + ".db";
    const ProgramEnd end = run({"--memory", memory, "--db", db, "--set", "output_dir=" + db + ".out", "--set",
                                "gradient_checkpointing=" + mode, "--set", "optim=" + optim, "--set",
                                "per_device_train_batch_size=" + batch});
    INFO(end.err);
    REQUIRE(end.code == 0);
    CHECK_THAT(end.err, Contains("memory of the GPU: ") &&
                            Contains("of " + memory.substr(0, memory.size() - 1) + " MiB") &&
                            Contains("CUDA context: 0 MiB, the emulated GPU has none") &&
                            Contains("products of many rows: " + products));
    CHECK((end.err.find(" of optimizer states") != std::string::npos) == (optim != "adamw_torch"));
    CHECK((end.err.find(" of inputs of blocks") != std::string::npos) == (mode == "offload"));
    const Json attempt = query(bench, "SELECT estimated_bytes, peak_bytes FROM attempt", db).at(0);
    const double planned = attempt["estimated_bytes"], taken = attempt["peak_bytes"];
    INFO(mode << " " << optim << ": planned " << planned << ", taken " << taken);
    CHECK(taken <= planned);
    CHECK(taken > 0.97 * planned);
  }
  // What it has must be said, and is kept to.
  CHECK(run({}).code == 2);
  CHECK(run({"--memory", "50%"}).code == 2);
  const ProgramEnd end = run({"--memory", "500000"});
  CHECK(end.code == 4);
  CHECK_THAT(end.err, Contains("may be used (--memory)"));
}
