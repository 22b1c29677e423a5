// The quantized base on disk as users of the program meet it.
#include <catch2/catch.hpp>

#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// What generate prints, as JSON.
Json generated(const Workbench& bench, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"generate",         "--model",  "model", "--quant",
                                        "nf4+dq",           "--prompt", "a b c", "--greedy",
                                        "--max-new-tokens", "6",        "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  ProgramEnd end = bench.run(arguments);
  INFO(end.err);
  REQUIRE(end.code == 0);
  CHECK(end.err.empty());
  return parse_json(end.out, "stdout");
}

Json shown(const Workbench& bench) {
  ProgramEnd end = bench.run({"model", "show", "model", "--check", "--json"});
  REQUIRE(end.code == 0);
  return parse_json(end.out, "stdout");
}

}  // namespace

TEST_CASE("commands keep the quantized base and use it and say where it is") {
  Workbench bench;
  ::unsetenv("QLORA_NO_CACHE");
  const Path kept = bench.path() / "model" / ".cache";
  CHECK_THAT(bench.run({"model", "show", "model"}).out,
             Contains("llama: 2 layers") && Contains("none; the first"));
  const Json plain = generated(bench, {"--no-cache", "--compute-dtype", "f32"});
  CHECK_FALSE(std::filesystem::exists(kept));
  CHECK(generated(bench, {"--compute-dtype", "f32"})["ids"] == plain["ids"]);
  const Json model = shown(bench);
  REQUIRE(model["base_cache"].size() == 1);
  const Json& base = model["base_cache"][0];
  CHECK(base["file"] == "model/.cache/qlora/nf4-dq-f32.base");
  CHECK(base["used"] == true);
  CHECK(base["bytes"] == std::filesystem::file_size(bench.path() / base["file"].get<std::string>()));
  const auto written = std::filesystem::last_write_time(bench.path() / base["file"].get<std::string>());
  CHECK(generated(bench, {"--compute-dtype", "f32"})["ids"] == plain["ids"]);
  CHECK(std::filesystem::last_write_time(bench.path() / base["file"].get<std::string>()) == written);

  bench.write("model/.cache/qlora/nf4-dq-f32.base", "no base");
  ProgramEnd text = bench.run({"model", "show", "model"});
  CHECK_THAT(text.out, Contains("made anew") && Contains("not a tensor image"));
  ProgramEnd again = bench.run({"generate", "--model", "model", "--quant", "nf4+dq", "--compute-dtype", "f32",
                                "--prompt", "a b c", "--greedy", "--max-new-tokens", "6"});
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains("warning: model/.cache/qlora/nf4-dq-f32.base: not a tensor image"));
  CHECK(std::count(again.err.begin(), again.err.end(), '\n') == 1);
  CHECK(shown(bench)["base_cache"][0]["used"] == true);
}

TEST_CASE("a sweep of several packs says once that nothing can be kept and gives the same adapters") {
  Workbench bench;
  // Two runs of unequal length share no pack.
  bench.write("two.yaml",
              "name: two\nmodel_name_or_path: model\ndataset: alpaca.json\nlora_r: 4\nmax_steps: 2\n"
              "per_device_train_batch_size: 2\ngradient_accumulation_steps: 1\neval_dataset_size: 0\n"
              "target_max_len: 48\noverlong: truncate\nparameters: {source_max_len: [100, 160]}\n");
  auto adapters = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"sweep",     "run",   "two.yaml",         "--db",
                                          out + ".db", "--set", "output_dir=" + out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    ProgramEnd end = bench.run(arguments);
    INFO(end.err);
    REQUIRE(end.code == 0);
    std::map<std::string, std::string> bytes;
    for (const auto& folder : std::filesystem::directory_iterator(bench.path() / out / "two"))
      if (folder.is_directory())
        bytes[folder.path().filename().string()] =
            read_file(folder.path() / "adapter" / "adapter_model.safetensors");
    CHECK(bytes.size() == 2);
    return std::pair(bytes, end.err);
  };
  bench.write("model/.cache", "in the way");
  const auto [plain, said] = adapters("none", {});
  const size_t first = said.find("the quantized base is not kept");
  REQUIRE(first != std::string::npos);
  CHECK(said.find("the quantized base is not kept", first + 1) == std::string::npos);
  std::filesystem::remove(bench.path() / "model" / ".cache");
  CHECK(adapters("off", {"--no-cache"}).first == plain);
  CHECK_FALSE(std::filesystem::exists(bench.path() / "model" / ".cache"));
  CHECK(adapters("kept", {}).first == plain);    // quantized by the first worker, mapped by the second
  CHECK(adapters("mapped", {}).first == plain);  // mapped by both
  CHECK(shown(bench)["base_cache"][0]["used"] == true);
}
