// Models of the families with LayerNorm through the program: a step of training, on the processor and on the
// emulated GPU, and an answer with its adapter. (What they learn is compared in core/train.)
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/models/tiny_model.h"
#include "core/text/tiny_tokenizer.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;

TEST_CASE("a model of every family with LayerNorm is trained by the program and answers with its adapter") {
  Workbench bench;
  bench.write(
      "r.yaml",
      "model_name_or_path: model\ndataset: alpaca.json\nlora_r: 4\nmax_steps: 1\nlearning_rate: 1e-2\n"
      "per_device_train_batch_size: 1\ngradient_accumulation_steps: 1\neval_dataset_size: 0\n"
      "source_max_len: 20\ntarget_max_len: 8\noverlong: truncate\nbits: 4\nlogging_steps: 1\n");
  for (TinyConfig config : tiny_layer_norm_models()) {
    config.vocab = TinyTokenizer::kVocabSize + 4;
    write_tiny_model(bench.path() / "model", config);
    std::filesystem::remove_all(bench.path() / "model/.cache");
    std::vector<std::string> backends = {"auto"};
    if (config.model_type == "gpt_neox") backends.emplace_back("cuda-emulated");  // seconds a model
    for (const std::string& backend : backends) {
      INFO(config.model_type << " " << backend);
      const std::string out = config.model_type + "-" + backend;
      const ProgramEnd trained = bench.run({"train", "r.yaml", "--backend", backend, "--memory", "1G", "--db",
                                            out + ".db", "--set", "output_dir=" + out});
      INFO(trained.err);
      REQUIRE(trained.code == 0);
      std::string adapter;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(bench.path() / out))
        if (entry.path().filename() == "adapter_config.json" &&
            entry.path().parent_path().filename() == "adapter")
          adapter = entry.path().parent_path().string();
      REQUIRE_FALSE(adapter.empty());
      const Json written =
          parse_json(read_file(Path(adapter) / "adapter_config.json"), "adapter_config.json");
      CHECK(written.at("fan_in_fan_out") == (config.model_type == "gpt2"));
      const ProgramEnd answered =
          bench.run({"generate", "--model", "model", "--adapter", adapter, "--prompt", "Spell", "--greedy",
                     "--max-new-tokens", "4", "--backend", backend});
      INFO(answered.err);
      CHECK(answered.code == 0);
    }
  }
}
