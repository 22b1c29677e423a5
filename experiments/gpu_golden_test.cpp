// Numbers of PyTorch, transformers and PEFT through the program itself, on the emulated GPU: a golden model,
// which has no tokenizer, gets one whose texts are the numbers of tokens, "<17><4>".
#include <fmt/format.h>
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>

#include "core/base/test_turns.h"
#include "core/models/golden_models.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;

namespace {

std::string text_of(std::span<const int32_t> tokens) {
  std::string text;
  for (int32_t token : tokens) text += fmt::format("<{}>", token);
  return text;
}

void write_number_tokenizer(const Path& folder, int32_t vocab_size) {
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  Json vocab = Json::object(), added = Json::array();
  for (int32_t id = 0; id < vocab_size; ++id) {
    const std::string content = text_of({&id, 1});
    vocab[content] = id;
    added.push_back({{"id", id}, {"content", content}, {"special", false}, {"normalized", false}});
  }
  const Json tokenizer = {{"version", "1.0"},
                          {"added_tokens", added},
                          {"normalizer", nullptr},
                          {"pre_tokenizer", byte_level},
                          {"decoder", byte_level},
                          {"post_processor", nullptr},
                          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
  write_file(folder / "tokenizer.json", tokenizer.dump());
}

// The golden of a family, another every day, as the folder `golden` of a bench.
class Golden {
 public:
  Golden() {
    const std::vector<Path> all = golden_models();
    REQUIRE(!all.empty());
    from_ = all[turn() % all.size()];
    std::printf("through the program: %s\n", from_.filename().c_str());
    const Path folder = bench_.path() / "golden";
    std::filesystem::create_directory(folder);
    for (const char* name : {"config.json", "model.safetensors", "adapter"})
      std::filesystem::create_symlink(std::filesystem::absolute(from_ / name), folder / name);
    write_number_tokenizer(folder, json("config.json").at("vocab_size"));
  }

  const Workbench& bench() const { return bench_; }
  std::string name() const { return from_.filename(); }
  Json json(const std::string& file) const { return read_golden_json(from_ / file); }
  Path file(const std::string& name) const { return from_ / name; }

  // What the program says of a greedy answer to the golden's prompt.
  Json answer(const std::vector<std::string>& more) const {
    const auto prompt = json("greedy.json").at("prompt").get<std::vector<int32_t>>();
    std::vector<std::string> words = {"generate",
                                      "--model",
                                      "golden",
                                      "--prompt",
                                      text_of(prompt),
                                      "--greedy",
                                      "--max-new-tokens",
                                      "12",
                                      "--compute-dtype",
                                      "f32",
                                      "--decode-numerics",
                                      "exact",
                                      "--backend",
                                      "cuda-emulated",
                                      "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const ProgramEnd end = bench_.run(words);
    INFO(end.err);
    REQUIRE(end.code == 0);
    const Json said = parse_json(end.out, "stdout");
    CHECK(said.at("prompt_ids").get<std::vector<int32_t>>() == prompt);
    return said;
  }

  // The loss of one training step on all of these sequences together; `labels`: how many tokens it is the
  // mean of.
  double first_loss(const Json& sequences, const std::string& base, int64_t labels) const {
    std::string lines;
    int64_t count = 0;
    for (const Json& sequence : sequences) {
      const auto ids = sequence.at("input_ids").get<std::vector<int32_t>>();
      if (ids.size() < 2) continue;  // nothing of it is learned
      const auto learned = sequence.at("labels").get<std::vector<int32_t>>();
      const auto source = static_cast<size_t>(std::count(learned.begin(), learned.end(), -100));
      const std::span<const int32_t> all = ids;
      lines +=
          Json{{"input", text_of(all.first(source))}, {"output", text_of(all.subspan(source))}}.dump() + "\n";
      ++count;
    }
    bench_.write("data.jsonl", lines);
    bench_.write("r.yaml",
                 fmt::format("model_name_or_path: golden\ndataset: data.jsonl\nlora_r: 4\nmax_steps: 1\n"
                             "per_device_train_batch_size: {}\ngradient_accumulation_steps: 1\n"
                             "eval_dataset_size: 0\nlogging_steps: 1\ncompute_dtype: f32\n{}",
                             count, base));
    const ProgramEnd end = bench_.run({"train", "r.yaml", "--backend", "cuda-emulated", "--memory", "1G"});
    INFO(end.err);
    REQUIRE(end.code == 0);
    const Json curve = query(bench_, "SELECT loss, labels FROM curves");
    REQUIRE(curve.size() == 1);
    CHECK(curve[0].at("labels") == labels);
    return curve[0].at("loss");
  }

 private:
  Workbench bench_;
  Path from_;
};

// The mean of -log p over a sequence's labels; logits [T, vocab].
double loss_of(const TensorView& logits, const std::vector<int32_t>& labels) {
  const std::vector<float> values = to_floats(logits);
  const auto vocab = static_cast<size_t>(logits.shape[1]);
  double sum = 0;
  int count = 0;
  for (size_t t = 1; t < labels.size(); ++t) {
    if (labels[t] < 0) continue;
    const float* row = &values[(t - 1) * vocab];
    double total = 0;
    for (size_t v = 0; v < vocab; ++v) total += std::exp(static_cast<double>(row[v]));
    sum += std::log(total) - row[labels[t]];
    ++count;
  }
  return sum / count;
}

// The rounding of f32; a base whose scales are not quantized a second time is 8e-5 off.
constexpr double kLossBound = 1e-5;

}  // namespace

TEST_CASE("greedy answers on the emulated GPU are those of transformers, with PEFT's adapter and without",
          "[golden]") {
  if (missing(golden_models_path())) return;
  const Golden golden;
  INFO(golden.name());
  const Json expected = golden.json("greedy.json");
  for (const auto& [tokens, more] : {std::pair<std::string, std::vector<std::string>>("tokens", {}),
                                     {"adapter_tokens", {"--adapter", "golden/adapter"}}}) {
    INFO(tokens);
    const Json said = golden.answer(more);
    CHECK(said.at("ids") == expected.at(tokens));
    CHECK(said.at("text") == text_of(expected.at(tokens).get<std::vector<int32_t>>()));
  }
}

// An adapter that is not trained yet adds nothing: the first loss is the base's.
TEST_CASE("the first loss of training on the emulated GPU is that of PyTorch", "[golden]") {
  if (missing(golden_models_path())) return;
  const Golden golden;
  INFO(golden.name());
  const Json expected = golden.json("expected.json");
  const double found = golden.first_loss(golden.json("inputs.json").at("sequences"), "bits: 32\n",
                                         expected.at("total_label_tokens"));
  INFO("off by " << found - expected.at("loss").get<double>());
  CHECK(std::abs(found - expected.at("loss").get<double>()) < kLossBound);
}

TEST_CASE("the first loss of QLoRA on the emulated GPU is that of PyTorch on a double-quantized NF4 base",
          "[golden]") {
  if (missing(golden_models_path())) return;
  const Golden golden;
  INFO(golden.name());
  const Json sequence = golden.json("inputs.json").at("sequences").at(1);
  const auto labels = sequence.at("labels").get<std::vector<int32_t>>();
  const SafetensorsFile file(golden.file("nf4.safetensors"));
  const double expected = loss_of(file.at("own.base_logits_1"), labels);
  const double found =
      golden.first_loss(Json::array({sequence}), "bits: 4\nquant_type: nf4\ndouble_quant: true\n",
                        golden.json("expected.json").at("sequences").at(1).at("label_tokens"));
  INFO("off by " << found - expected);
  CHECK(std::abs(found - expected) < kLossBound);
}
