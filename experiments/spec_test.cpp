#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/base/test_data.h"
#include "experiments/eval_rows.h"
#include "experiments/spec.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

const ContentHashes kContent = {std::string(64, 'a'), std::string(64, 'b'), std::string(64, 'c')};

// In f32 unless told: what `auto` stands for depends on the machine.
RunConfig config_of(const std::string& yaml) {
  Settings settings;
  read_settings(parse_yaml("model_name_or_path: m\ndataset: d\ncompute_dtype: f32", "f32"), settings);
  read_settings(parse_yaml(yaml, "c.yaml"), settings);
  return RunConfig(settings);
}

std::string key_of(const std::string& yaml) {
  return hex(run_key(config_of(yaml), kContent));
}

}  // namespace

// These three must never change: stored results are found by them. A change that means to change results
// raises kSemantics and freezes new ones.
TEST_CASE("three run keys are frozen") {
  CHECK(identity_text(config_of(""), kContent) ==
        R"({"compute_dtype":"f32","data":")" + std::string(64, 'c') + R"(","model":")" +
            std::string(64, 'a') + R"(","semantics":1,"tokenizer":")" + std::string(64, 'b') + R"("})");
  CHECK(key_of("") == "7a97f9682d8b4b2b6ec1918d40697b84096e9b68dcbda8650e53e48a33d0906e");
  CHECK(key_of("lora_r: 8\nlearning_rate: 1e-4\nmax_steps: 20\nlora_target_modules: [v_proj, q_proj]") ==
        "f5f9dd990586e52f00769d1a9dc311db2b32def869cc519ad7dec581240fe6f2");
  CHECK(key_of("bits: 32\noverlong: drop\nseed: 7\nlora_dropout: 0.1\ndataset_format: alpaca") ==
        "12b71f9270851259c5b81159c7be1722b5ef131653d68f1773d4e9c4992213d9");
}

TEST_CASE("runs in bf16 have semantics of their own") {
  static_assert(kBf16Semantics != kSemantics);
  const auto identity = nlohmann::json::parse(identity_text(config_of("compute_dtype: bf16"), kContent));
  CHECK(identity.at("semantics") == kBf16Semantics);
}

TEST_CASE("a new option with a default keeps old keys") {
  std::vector<Option> table(options().begin(), options().end());
  Option fresh;
  fresh.name = "neftune_noise_alpha";
  fresh.kind = ValueKind::number;
  fresh.fallback = "0";
  table.push_back(fresh);
  for (const char* yaml : {"", "lora_r: 8\nseed: 3", "bits: 32"}) {
    RunConfig config = config_of(yaml);
    CHECK(identity_text(config, kContent, table) == identity_text(config, kContent));
    // The same once configurations carry the option at its default; another value makes another run.
    CHECK(identity_text(config.with(fresh.name, 0.0), kContent, table) == identity_text(config, kContent));
    CHECK(identity_text(config.with(fresh.name, 5.0), kContent, table) != identity_text(config, kContent));
  }
}

TEST_CASE("a changed default keeps old keys through the first released one") {
  std::vector<Option> table(options().begin(), options().end());
  for (Option& option : table)
    if (option.name == "lora_r") {
      option.fallback = "16";
      option.since = "64";
    }
  RunConfig old = config_of("lora_r: 64"), now = config_of("lora_r: 16");
  CHECK(identity_text(old, kContent, table) == identity_text(old, kContent));
  CHECK(identity_text(now, kContent, table) == identity_text(now, kContent));
}

TEST_CASE("what changes no number is not in a run key") {
  std::string plain = key_of("");
  for (const char* yaml :
       {"output_dir: elsewhere", "logging_steps: 1", "save_steps: 3", "save_total_limit: 2", "run_name: x",
        "gradient_checkpointing: none", "gradient_checkpointing: selective",
        "gradient_checkpointing: offload", "activation_offloading: true", "per_device_eval_batch_size: 8",
        "compute_dtype: f32", "overlong: truncate", "lora_target_modules: all", "learning_rate: 0.0002",
        "optim: adamw_torch", "optim: paged_adamw_32bit"}) {
    INFO(yaml);
    CHECK(key_of(yaml) == plain);
  }
  Settings elsewhere;
  read_settings(parse_yaml("model_name_or_path: /other/m\ndataset: other/d\ncompute_dtype: f32\n", "c"),
                elsewhere);
  CHECK(hex(run_key(RunConfig(elsewhere), kContent)) == plain);
}

TEST_CASE("every option of the identity changes the key") {
  std::string plain = key_of("");
  for (const char* yaml : {"dataset_format: alpaca",
                           "eval_dataset_size: 7",
                           "max_train_samples: 7",
                           "source_max_len: 7",
                           "target_max_len: 7",
                           "train_on_source: yes",
                           "group_by_length: no",
                           "overlong: drop",
                           "compute_dtype: bf16",
                           "bits: 32",
                           "quant_type: fp4",
                           "double_quant: no",
                           "lora_r: 7",
                           "optim: adamw_8bit",
                           "lora_alpha: 7",
                           "lora_dropout: 0.05",
                           "lora_target_modules: [q_proj]",
                           "use_rslora: yes",
                           "per_device_train_batch_size: 7",
                           "gradient_accumulation_steps: 7",
                           "max_steps: 7",
                           "learning_rate: 7",
                           "lr_scheduler_type: linear",
                           "warmup_ratio: 0.5",
                           "warmup_steps: 7",
                           "adam_beta1: 0.5",
                           "adam_beta2: 0.5",
                           "adam_epsilon: 7",
                           "weight_decay: 7",
                           "max_grad_norm: 7",
                           "seed: 7",
                           "data_seed: 7"}) {
    INFO(yaml);
    CHECK(key_of(yaml) != plain);
  }
  for (int i = 0; i < 3; ++i) {
    ContentHashes other = kContent;
    (i == 0 ? other.model : i == 1 ? other.tokenizer : other.data) = std::string(64, 'd');
    CHECK(hex(run_key(config_of(""), other)) != plain);
  }
}

TEST_CASE("options without effect beside others are not in a key") {
  CHECK(key_of("bits: 32") == key_of("bits: 32\nquant_type: fp4\ndouble_quant: no"));
  CHECK(key_of("warmup_steps: 5") == key_of("warmup_steps: 5\nwarmup_ratio: 0.5"));
  CHECK(base_key(config_of("lora_r: 1"), kContent) == base_key(config_of("seed: 2"), kContent));
  CHECK(base_key(config_of("quant_type: fp4"), kContent) != base_key(config_of(""), kContent));
  CHECK(base_key(config_of("compute_dtype: bf16"), kContent) != base_key(config_of(""), kContent));
  CHECK(pack_key(config_of("compute_dtype: bf16"), kContent) != pack_key(config_of(""), kContent));
}

TEST_CASE("an evaluation has a key of its own") {
  Digest run = run_key(config_of(""), kContent), base = base_key(config_of(""), kContent);
  MmluOptions options;
  std::string protocol = mmlu_protocol(options);
  Digest key = evaluation_key(run, 10, "mmlu", protocol, "d");
  CHECK(key == evaluation_key(run, 10, "mmlu", protocol, "d"));
  CHECK(key != evaluation_key(base, 10, "mmlu", protocol, "d"));
  CHECK(key != evaluation_key(run, 11, "mmlu", protocol, "d"));
  CHECK(key != evaluation_key(run, 10, "mmlu", protocol, "e"));
  options.limit = 4;
  CHECK(key != evaluation_key(run, 10, "mmlu", mmlu_protocol(options), "d"));
  CHECK(protocol.find("answer_loss") == std::string::npos);
  options.protocol = "qlora";
  CHECK(mmlu_protocol(options).find("answer_loss") != std::string::npos);
  CHECK(mmlu_protocol(options).find("rendered") == std::string::npos);
  CHECK(parse_json(mmlu_protocol(options, true), "protocol")["rendered"] == true);
  // The version is part of it: another one is another evaluation.
  for (const char* name : {"hendrycks", "lm_eval", "qlora"}) {
    options.protocol = name;
    const std::string version = name == std::string("hendrycks") ? "2" : "3";
    CHECK(parse_json(mmlu_protocol(options), "protocol")["version"] == version);
  }
  CHECK(loss_protocol(config_of("eval_dataset_size: 32")) == R"({"examples":32,"name":"held-out"})");
}

TEST_CASE("questions of MMLU are stored with what their protocol scores") {
  MmluReport report;
  MmluItem& item = report.items.emplace_back();
  item.subject = "anatomy";
  item.prompt_sha256 = hex(sha256("prompt"));
  item.logits = {1, 2, 3, 4};
  item.log_probs = {-4, -3, -2, -1};
  EvalJob job;
  job.data_hash = hex(sha256("data"));
  const std::vector<float> logits = {1, 2, 3, 4}, log_probs = {-4, -3, -2, -1};
  for (const auto& [name, scores] :
       {std::pair("hendrycks", logits), std::pair("lm_eval", log_probs), std::pair("qlora", log_probs)}) {
    job.mmlu.protocol = name;
    CHECK(mmlu_row(job, {}, report, "", 0).predictions.at(0).scores == scores);
  }
}

TEST_CASE("the hash of a model folder follows its content and not its place") {
  test::TemporaryFolder a, b;
  for (const Path& folder : {a.path(), b.path()}) {
    CHECK_THROWS_WITH(model_content_hash(folder), Contains("config.json"));
    write_file(folder / "config.json", "{}");
    CHECK_THROWS_WITH(model_content_hash(folder), Contains("model.safetensors"));
    write_file(folder / "model.safetensors", "weights");
    write_file(folder / "README.md", folder.string());
  }
  CHECK(model_content_hash(a.path()) == model_content_hash(b.path()));
  write_file(b.path() / "model.safetensors", "Weights");
  CHECK(model_content_hash(a.path()) != model_content_hash(b.path()));
  write_file(a.path() / "model.safetensors.index.json", R"({"weight_map": {"x": "model-1.safetensors"}})");
  CHECK_THROWS_WITH(model_content_hash(a.path()), Contains("model-1.safetensors"));
}
