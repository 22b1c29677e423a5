// Planned memory against what the system says that a worker took.

#include <fmt/format.h>
#include <catch2/catch.hpp>

#include "core/io/test_models.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// Examples of more than 512 tokens, so that every one is cut to its full length.
void write_long_examples(const Path& path) {
  std::string text = "[";
  for (int i = 0; i < 8; ++i) {
    std::string words;
    for (int w = 0; w < 900; ++w) words += fmt::format(" {}", (w * 7919 + i * 31) % 1000);
    text += fmt::format(R"({}{{"instruction": "Go on:{}", "input": "", "output": "{}"}})", i > 0 ? "," : "",
                        words, words);
  }
  write_file(path, text + "]");
}

std::string output_of(const Path& folder, const std::vector<std::string>& arguments) {
  ProgramEnd end = Program(folder, arguments).wait();
  INFO(end.err);
  REQUIRE(end.code == 0);
  return end.out;
}

}  // namespace

TEST_CASE("a training step takes at most a tenth more memory than was planned", "[slow]") {
  const Path model = std::filesystem::absolute(smollm2());
  if (missing(model)) return;
  TemporaryFolder folder;
  write_long_examples(folder.path() / "long.json");
  write_file(folder.path() / "run.yaml",
             "model_name_or_path: " + model.string() +
                 "\ndataset: long.json\neval_dataset_size: 0\nlora_r: 16\nlora_dropout: 0.1\n"
                 "source_max_len: 256\ntarget_max_len: 256\noverlong: truncate\n"
                 "train_on_source: true\nper_device_train_batch_size: 4\n"
                 "gradient_accumulation_steps: 1\nmax_steps: 1\n");
  // The first may write the kept base or map it, the second quantizes, the third maps it.
  for (const auto& [mode, base_cache] :
       {std::pair<std::string, std::string>{"none", "true"}, {"selective", "false"}, {"block", "true"}}) {
    const std::string db = mode + ".db";
    const std::string lines = output_of(
        folder.path(), {"train", "run.yaml", "--json", "--db", db, "--set", "output_dir=" + mode, "--set",
                        "gradient_checkpointing=" + mode, "--set", "base_cache=" + base_cache});
    Json launch = parse_json(lines.substr(0, lines.find('\n')), "stdout");
    Json taken = parse_json(output_of(folder.path(), {"results", "query", "SELECT peak_bytes FROM attempt",
                                                      "--json", "--db", db}),
                            "stdout");
    const double planned = launch["plan"]["runs"][0]["memory"], peak = taken[0]["peak_bytes"];
    INFO(mode << ": planned " << planned << " bytes, taken " << peak);
    CHECK(peak <= 1.10 * planned);
    CHECK(peak >= 0.80 * planned);
  }
}
