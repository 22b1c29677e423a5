#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include "experiments/config.h"
#include "experiments/evals.h"
#include "kernels/cpu/isa.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

Settings settings_of(const std::string& yaml) {
  Settings settings;
  read_settings(parse_yaml(yaml, "c.yaml"), settings);
  return settings;
}

RunConfig config_of(const std::string& yaml) {
  return RunConfig(settings_of("model_name_or_path: m\ndataset: d\n" + yaml));
}

}  // namespace

TEST_CASE("defaults are those of the paper and every option has a value") {
  RunConfig config = config_of("");
  CHECK(config.integer("lora_r") == 64);
  CHECK(config.number("lora_alpha") == 16);
  CHECK(config.number("learning_rate") == 2e-4);
  CHECK(config.number("max_grad_norm") == 0.3);
  CHECK(config.text("quant_type") == "nf4");
  CHECK(config.flag("double_quant"));
  CHECK(config.list("lora_target_modules") == std::vector<std::string>{"all-linear"});
  CHECK(config.values().size() == options().size());
}

TEST_CASE("auto values resolve to what this build can do") {
  const std::string best = best_compute_dtype();
  CHECK(best == (cpu_has_amx_bf16() ? "bf16_amx" : cpu_has_avx512_bf16() ? "bf16" : "f32"));
  CHECK(best_compute_dtype(true) == "bf16");
  for (const char* yaml : {"", "compute_dtype: auto", "bf16: auto", "bf16: false"})
    CHECK(config_of(yaml).text("compute_dtype") == best);
  for (const char* yaml : {"compute_dtype: bf16", "bnb_4bit_compute_dtype: bfloat16", "bf16: true"}) {
    CHECK(config_of(yaml).text("compute_dtype") == "bf16");
    CHECK(load_options(config_of(yaml)).operands == Operands::bf16);
  }
  for (const char* yaml : {"compute_dtype: f32", "torch_dtype: float32"}) {
    CHECK(config_of(yaml).text("compute_dtype") == "f32");
    CHECK(load_options(config_of(yaml)).operands == Operands::as_stored);
  }
  for (Operands operands : kAllOperands)
    CHECK(load_options(config_of(std::string("compute_dtype: ") + name_of(operands))).operands == operands);
  CHECK(config_of("").text("optim") == "adamw_torch");
  CHECK(train_config(config_of("")).slab_bytes == 0);
  CHECK(train_config(config_of("optim: paged_adamw_32bit")).slab_bytes > 0);
  CHECK(train_config(config_of("optim: adamw_bnb_8bit")).eight_bit);
  CHECK_THAT(print_config(config_of("lora_r: 8"), settings_of("lora_r: 8")),
             Contains("lora_r: 8\n") && Contains("compute_dtype: " + best + "  # default\n"));
  RunConfig odd = config_of("")
                      .with("run_name", std::string("a: \"b\" #1"))
                      .with("dataset_format", std::string("alpaca"));
  CHECK_THAT(print_config(odd, {}),
             Contains(R"(run_name: "a: \"b\" #1")") && Contains("dataset_format: alpaca  # from the data\n"));
  Settings read;
  read_settings(parse_yaml(print_config(odd, {}), "printed"), read);
  CHECK(RunConfig(read) == odd);
}

TEST_CASE("numbers are numbers however they are written") {
  for (const char* text : {"2e-4", "0.0002", "2.0e-4", "+2e-4", "0.2e-3", "2E-4"})
    CHECK(config_of(std::string("learning_rate: ") + text).number("learning_rate") == 2e-4);
  for (const char* text : {"1000", "1_000", "1e3", "1.0e3", "1000.0"})
    CHECK(config_of(std::string("max_steps: ") + text).integer("max_steps") == 1000);
  CHECK(config_of("lora_alpha: 16").at("lora_alpha") == config_of("lora_alpha: 16.0").at("lora_alpha"));
}

TEST_CASE("what only looks like a number is refused with its place") {
  for (const char* text :
       {"010", "1__0", "_1", "0x10", "nan", "inf", "'5'", "1.5.2", "five", "1e400", "[1]", "2 e-4"}) {
    INFO(text);
    CHECK_THROWS_WITH(config_of(std::string("learning_rate: ") + text),
                      Contains("c.yaml:3:") && Contains("learning_rate"));
  }
  CHECK_THROWS_WITH(config_of("max_steps: 1.5"),
                    "c.yaml:3:12: `max_steps` must be a whole number, found `1.5`");
  CHECK_THROWS_WITH(config_of("max_steps: 0"), Contains("`max_steps` must be at least 1"));
}

TEST_CASE("yes and no are booleans in boolean fields only") {
  for (const char* text : {"yes", "on", "true", "True"})
    CHECK(config_of(std::string("train_on_source: ") + text).flag("train_on_source"));
  for (const char* text : {"no", "off", "false"})
    CHECK_FALSE(config_of(std::string("double_quant: ") + text).flag("double_quant"));
  CHECK(config_of("run_name: no").text("run_name") == "no");
  CHECK_THROWS_WITH(config_of("double_quant: 1"), Contains("must be yes or no"));
}

TEST_CASE("other tools words mean the same options") {
  Settings settings =
      settings_of("base_model: m\nlora_rank: 8\nmicro_batch_size: 2\ntrain-on-inputs: yes\nval_size: 10\n");
  CHECK(std::get<std::string>(settings["model_name_or_path"].value) == "m");
  CHECK(std::get<int64_t>(settings["lora_r"].value) == 8);
  CHECK(std::get<int64_t>(settings["per_device_train_batch_size"].value) == 2);
  CHECK(std::get<bool>(settings["train_on_source"].value));
  CHECK(config_of("load_in_4bit: true").integer("bits") == 4);
  CHECK(config_of("completion_only_loss: false").flag("train_on_source"));
  CHECK(config_of("lora_target_linear: true") == config_of("lora_target_modules: all"));
  CHECK(config_of("lora_target_modules: [v_proj, q_proj]") == config_of("lora_target: 'q_proj,v_proj'"));
}

TEST_CASE("eight bits are int8 whichever of the keys says so") {
  for (const char* text : {"bits: 8", "quant_type: int8", "load_in_8bit: true", "quantization_bit: 8",
                           "load_in_8bit: true\nload_in_4bit: false", "bits: 8\nquant_type: int8"}) {
    const RunConfig config = config_of(text);
    CHECK(config.integer("bits") == 8);
    CHECK(config.text("quant_type") == "int8");
    CHECK(quant_config(config).format == Format::int8);
    CHECK(config == config_of("bits: 8"));
  }
  CHECK(quant_config(config_of("bits: 32\nquant_type: int8")).format == Format::dense);
  CHECK(config_of("load_in_8bit: false") == config_of("bits: 4"));
}

TEST_CASE("scales of eight bits are quantized only when asked for") {
  for (const char* text :
       {"bits: 8", "quant_type: int8", "load_in_8bit: true", "bits: 8\nquant_type: int8"}) {
    INFO(text);
    CHECK_FALSE(quant_config(config_of(text)).double_quant);
    CHECK(quant_config(config_of(std::string(text) + "\ndouble_quant: true")).double_quant);
  }
  CHECK(quant_config(config_of("bits: 4")).double_quant);
  CHECK(config_of("bits: 32").flag("double_quant"));
}

TEST_CASE("a base that is not loaded in four bits is not quantized unless something says how") {
  for (const char* text : {"load_in_4bit: false", "load_in_4bit: false\nload_in_8bit: false",
                           "load_in_8bit: no\nload-in-4bit: no", "load_in_4bit: false\nbits: 32"}) {
    INFO(text);
    CHECK(config_of(text) == config_of("bits: 32"));
  }
  for (const auto& [text, same] : {std::pair("load_in_4bit: false\nload_in_8bit: true", "bits: 8"),
                                   {"load_in_8bit: true\nload_in_4bit: false", "bits: 8"},
                                   {"load_in_4bit: false\nquant_type: int8", "bits: 8"},
                                   {"quant_type: fp4\nload_in_4bit: false", "quant_type: fp4"},
                                   {"load_in_4bit: false\nquant_type: fp4", "quant_type: fp4"},
                                   {"load_in_4bit: auto", "bits: 4"}}) {
    INFO(text);
    CHECK(config_of(text) == config_of(same));
  }
}

TEST_CASE("a later file that forbids four bits takes back those of an earlier one and no others") {
  for (const auto& [earlier, later, bits] : {std::tuple("load_in_4bit: true", "load_in_4bit: false", 32),
                                             {"quant_type: fp4", "load_in_4bit: false", 32},
                                             {"load_in_8bit: true", "load_in_4bit: false", 8},
                                             {"quant_type: int8", "load_in_4bit: false", 8},
                                             {"load_in_4bit: false", "load_in_8bit: true", 8},
                                             {"load_in_4bit: false", "quant_type: fp4", 4},
                                             {"load_in_4bit: false", "lora_r: 8", 32}}) {
    INFO(earlier << ", " << later);
    Settings settings = settings_of(std::string("model_name_or_path: m\ndataset: d\n") + earlier);
    read_settings(parse_yaml(later, "d.yaml"), settings);
    CHECK(RunConfig(settings).integer("bits") == bits);
  }
}

TEST_CASE("two names of one option in one file are an error and in two files the later counts") {
  CHECK_THROWS_WITH(settings_of("lora_r: 8\nlora_rank: 8\n"),
                    "c.yaml:2:1: `lora_r` and `lora_rank` are two names of one option (`lora_r`); keep one");
  CHECK_THROWS_AS(settings_of("load_in_4bit: true\nbits: 4\n"), Error);
  Settings settings = settings_of("lora_r: 8\n");
  read_settings(parse_yaml("lora_rank: 16", "d.yaml"), settings);
  CHECK(std::get<int64_t>(settings["lora_r"].value) == 16);
}

TEST_CASE("an unknown key is answered with the nearest one") {
  CHECK_THROWS_WITH(settings_of("seed: 1\n  \nlora_rnak: 8\n"),
                    "c.yaml:3:1: unknown key `lora_rnak`; did you mean `lora_rank`?");
  CHECK_THROWS_WITH(settings_of("learning_rte: 1"), Contains("did you mean `learning_rate`?"));
}

TEST_CASE("values that this build cannot honour are errors that say what it can") {
  const std::pair<const char*, const char*> cases[] = {
      {"compute_dtype: fp16", "auto, f32, bf16, bf16_amx"},
      {"compute_dtype: bf16_axm", "bf16_amx"},
      {"fp16: true", "compute_dtype: bf16"},
      {"pure_bf16: true", "compute_dtype: bf16"},
      {"optim: paged_adamw_8bit", "adamw_8bit"},
      {"bits: 3", "4, 8, 32"},
      {"use_dora: true", "use_rslora"},
      {"modules_to_save: [lm_head]", "LoRA adapters only"},
      {"packing: true", "nothing to pack"},
      {"quant_type: int3", "nf4, fp4, fp4-e3m0, int4, int8"},
      {"quant_type: int8\nbits: 4", "`bits: 4` and `quant_type: int8` exclude each other"},
      {"bnb_4bit_quant_type: nf4\nload_in_8bit: true", "int8 is the type of 8 bits"},
      {"num_train_epochs: 3", "max_steps"},
      {"cutoff_len: 512", "source_max_len"},
      {"lr_scheduler_type: polynomial", "cosine"},
      {"adapter_name_or_path: a", "fresh adapter"},
      {"evals_per_epoch: 4", "every eval_steps"},
      {"evaluation_strategy: epoch", "no, steps, auto"},
      {"evaluation_strategy: steps\ndo_eval: true", "give eval_steps above 0"},
      {"eval_strategy: no\ndo_eval: true\neval_steps: 187", "leave one of them out"},
      {"bench_dataset: dharma.json", "mmlu_data: PATH"},
      {"mmlu_dataset: mmlu-ten", "mmlu-fs, mmlu-zs"},
      {"gradient_checkpointing: offload_disk", "none, selective, block, offload, auto"},
      {"activation_offloading: true\ngradient_checkpointing: false", "needs `gradient_checkpointing: true`"},
      {"activation_offloading: true\ngradient_checkpointing: auto", "found `auto`"},
      {"activation_offloading: false\ngradient_checkpointing: offload", "exclude each other"},
  };
  for (const auto& [yaml, advice] : cases) {
    INFO(yaml);
    CHECK_THROWS_WITH(config_of(yaml), Contains("c.yaml:3:") && Contains(advice));
  }
  for (const char* harmless :
       {"packing: false", "use_dora: no", "modules_to_save:", "modules_to_save: []", "bf16: auto",
        "resume_from_checkpoint: true", "report_to: none", "load_in_8bit: false", "evaluation_strategy: no"})
    CHECK(config_of(harmless) == config_of(""));
}

TEST_CASE("evaluations of training are asked for as in qlora.py") {
  CHECK(own_evals(config_of("")).empty());
  const RunConfig config = config_of(
      "do_bench_eval: true\ndo_eval: true\neval_strategy: steps\neval_steps: 187\nmmlu_split: eval\n"
      "mmlu_dataset: mmlu-zs\nmax_mmlu_samples: 100\nmmlu_source_max_len: 512\nmmlu_data: tree");
  const std::vector<EvalSpec> evals = own_evals(config);
  REQUIRE(evals.size() == 2);
  CHECK(evals[0].task == "loss");
  CHECK(evals[0].every == 187);
  const EvalSpec& mmlu = evals[1];
  CHECK((mmlu.task == "mmlu" && mmlu.every == 187 && mmlu.at_end && !mmlu.at_start && !mmlu.base));
  CHECK((mmlu.data == "tree" && mmlu.mmlu.protocol == "qlora" && mmlu.mmlu.split == "val"));
  CHECK((mmlu.mmlu.shots == 0 && mmlu.mmlu.samples == 100 && mmlu.mmlu.max_length == 512));
  CHECK(own_evals(config_of("do_mmlu_eval: true"))[0].mmlu.shots == 5);
  CHECK_THROWS_WITH(config_of("eval_steps: 187"),
                    Contains("c.yaml:3:") && Contains("needs do_eval or do_mmlu_eval"));
  CHECK_THROWS_WITH(config_of("do_eval: true\neval_dataset_size: 0"), Contains("eval_dataset_size above 0"));
  CHECK_THROWS_WITH(config_of("do_mmlu_evals: true"), Contains("did you mean `do_mmlu_eval`?"));
}

TEST_CASE("checkpointing is a mode or yes or no") {
  CHECK(config_of("").text("gradient_checkpointing") == "block");
  for (const auto& [yaml, mode] : {std::pair("true", "block"),
                                   {"Yes", "block"},
                                   {"full", "block"},
                                   {"false", "none"},
                                   {"off", "none"},
                                   {"Selective", "selective"},
                                   {"none", "none"},
                                   {"offload", "offload"},
                                   {"unsloth", "offload"},
                                   {"true\nactivation_offloading: true", "offload"},
                                   {"offload\nactivation_offloading: true", "offload"},
                                   {"true\nenable_activation_offloading: false", "block"}}) {
    INFO(yaml);
    const RunConfig config = config_of(std::string("gradient_checkpointing: ") + yaml);
    CHECK(config.text("gradient_checkpointing") == mode);
    CHECK(config.flag("activation_offloading") == (std::string(mode) == "offload"));
  }
  CHECK(checkpointing(config_of("enable_activation_offloading: true")) == Checkpointing::offload);
  CHECK(checkpointing(config_of("disable_gradient_checkpointing: true")) == Checkpointing::none);
  CHECK(checkpointing(config_of("enable_activation_checkpointing: selective")) == Checkpointing::selective);
  // As configurations were stored when it was yes or no.
  Json stored = config_of("").to_json();
  stored["gradient_checkpointing"] = false;
  CHECK(checkpointing(RunConfig::from_json(stored)) == Checkpointing::none);
}

TEST_CASE("a configuration that was stored before an option existed is read with what was done then") {
  const RunConfig config = config_of("lora_r: 8");
  Json stored = config.to_json();
  stored.erase("base_cache");
  stored.erase("decode_numerics");
  stored.erase("prompt_lookup_num_tokens");
  CHECK(RunConfig::from_json(stored) == config);
  stored.erase("compute_dtype");
  CHECK_THROWS_WITH(RunConfig::from_json(stored), Contains("lacks `compute_dtype`"));
}

TEST_CASE("the base is kept unless the configuration or the environment forbids it") {
  ::unsetenv("QLORA_NO_CACHE");
  CHECK(load_options(config_of("")).cache);
  CHECK_FALSE(load_options(config_of("base_cache: false")).cache);
  ::setenv("QLORA_NO_CACHE", "1", 1);
  CHECK_FALSE(load_options(config_of("")).cache);
  ::setenv("QLORA_NO_CACHE", "0", 1);
  CHECK(load_options(config_of("")).cache);
  ::unsetenv("QLORA_NO_CACHE");
}

TEST_CASE("decode_numerics is fast unless asked otherwise") {
  CHECK(decode_numerics(config_of("")) == Numerics::decode);
  CHECK(decode_numerics(config_of("decode_numerics: Exact")) == Numerics::exact);
  CHECK_THROWS_WITH(config_of("decode_numerics: slow"), Contains("fast, exact"));
}

TEST_CASE("drafts are as many as pay unless a number says otherwise and no part of what a run is") {
  CHECK(drafts(config_of("")) == -1);
  CHECK(drafts(config_of("prompt_lookup_num_tokens: auto")) == -1);
  CHECK(drafts(config_of("prompt_lookup_num_tokens: 10")) == 10);
  CHECK(drafts(config_of("prompt_lookup_num_tokens: none")) == 0);
  for (const char* wrong : {"-1", "16", "often", "2.5"})
    CHECK_THROWS_WITH(config_of(std::string("prompt_lookup_num_tokens: ") + wrong),
                      Contains("prompt_lookup_num_tokens") && Contains("auto, 0, 1"));
  CHECK(find_option("prompt_lookup_num_tokens")->identity == Identity::out);
}

TEST_CASE("options that contradict each other are refused") {
  CHECK_THROWS_WITH(config_of("warmup_steps: 20\nmax_steps: 10"), Contains("more than `max_steps: 10`"));
  CHECK_THROWS_WITH(RunConfig(settings_of("dataset: d")), Contains("`model_name_or_path` is not set"));
  CHECK_THROWS_WITH(config_of("dataset_format: alpaka"), Contains("did you mean `alpaca`?"));
}

TEST_CASE("warmup follows the ratio unless steps are given") {
  CHECK(train_config(config_of("max_steps: 100\nwarmup_ratio: 0.031")).warmup_steps == 4);
  CHECK(train_config(config_of("max_steps: 100\nwarmup_steps: 7")).warmup_steps == 7);
}

TEST_CASE("a configuration survives its JSON") {
  RunConfig config =
      config_of("lora_r: 8\nlearning_rate: 1e-4\nlora_target_modules: [q_proj]\noverlong: drop\n");
  CHECK(RunConfig::from_json(config.to_json()) == config);
  CHECK(config.to_json()["lora_alpha"].is_number_float());
  CHECK(dataset_config(config).overlong == Overlong::drop);
  CHECK(lora_config(config).targets == std::vector<std::string>{"q_proj"});
  CHECK(quant_config(config_of("bits: 32")).format == Format::dense);
}

TEST_CASE("assignments of the command line read as yaml does") {
  YamlNode::Entry entry = parse_assignment("learning-rate=2e-4");
  CHECK(read_entry(entry).option->name == "learning_rate");
  CHECK(std::get<double>(read_entry(entry).value) == 2e-4);
  CHECK_THROWS_WITH(parse_assignment("lora_r"), Contains("expected key=value"));
  CHECK_THROWS_WITH(read_entry(parse_assignment("lora_r=x")), Contains("--set lora_r=x"));
}

TEST_CASE("every default can be read back and every option has help") {
  for (const Option& option : options()) {
    INFO(option.name);
    CHECK_FALSE(option.help.empty());
    if (!option.fallback.empty()) CHECK_NOTHROW(parse_option(option, option.fallback));
    if (!option.required && option.fallback.empty()) CHECK(option.kind == ValueKind::text);
    CHECK(find_option_or_alias(option.name) == &option);
    for (const std::string& alias : option.aliases) CHECK(find_option_or_alias(alias) == &option);
  }
}
