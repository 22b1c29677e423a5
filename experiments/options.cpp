#include "experiments/options.h"

#include <algorithm>
#include <cctype>

#include "core/base/names.h"

namespace qlora {
namespace {

using enum ValueKind;

// Defaults are those of the QLoRA paper and its program, not of Hugging Face's Trainer.
std::vector<Option> make_options() {
  const Identity out = Identity::out;
  return {
      // What is trained, and on what. Content hashes stand for the paths.
      {.name = "model_name_or_path",
       .kind = text,
       .required = true,
       .identity = out,
       .aliases = {"base_model"},
       .help = "folder of the base model, in Hugging Face's layout"},
      {.name = "dataset",
       .kind = text,
       .required = true,
       .identity = out,
       .aliases = {"dataset_name"},
       .help = "a file of examples, or the name of a sample set"},
      {.name = "dataset_format", .kind = text, .help = "how a record is read; empty: seen from its keys"},
      {.name = "eval_dataset_size",
       .kind = integer,
       .fallback = "1024",
       .aliases = {"val_size", "val_set_size"},
       .least = 0,
       .help = "held-out examples, taken away from training"},
      {.name = "max_train_samples",
       .kind = integer,
       .fallback = "0",
       .aliases = {"max_samples"},
       .least = 0,
       .help = "use only so many examples; 0: all"},
      {.name = "source_max_len",
       .kind = integer,
       .fallback = "1024",
       .least = 1,
       .help = "most tokens of a prompt, BOS included"},
      {.name = "target_max_len",
       .kind = integer,
       .fallback = "256",
       .least = 1,
       .help = "most tokens of an answer, EOS included"},
      {.name = "train_on_source",
       .kind = boolean,
       .fallback = "false",
       .aliases = {"train_on_inputs", "train_on_prompt", "train_on_input"},
       .help = "learn the prompts too"},
      {.name = "group_by_length",
       .kind = boolean,
       .fallback = "true",
       .help = "batches of examples of like length"},
      {.name = "overlong",
       .kind = text,
       .fallback = "auto",
       .aliases = {"excess_length_strategy", "truncation_mode"},
       .choices = {"auto", "truncate", "drop", "error", "raise=error"},
       .help = "examples that are too long; auto: truncate, but stop when over 20% of the prompts are cut"},
      // The base model's weights and arithmetic.
      {.name = "bits",
       .kind = integer,
       .fallback = "4",
       .aliases = {"quantization_bit"},
       .choices = {"4", "8", "32"},
       .help = "4: quantized; 8: quantized to int8; 32: as the compute type"},
      {.name = "quant_type",
       .kind = text,
       .fallback = "nf4",
       .aliases = {"bnb_4bit_quant_type", "quantization_type"},
       .choices = {"nf4", "fp4", "fp4-e3m0", "int4", "int8", "fp4-e2m1=fp4"},
       .help = "the type of quantized weights; int8 is that of bits: 8"},
      {.name = "double_quant",
       .kind = boolean,
       .fallback = "true",
       .aliases = {"bnb_4bit_use_double_quant", "use_bnb_nested_quant", "double_quantization"},
       .help = "quantize the scales too; with bits: 8 the default is false"},
      {.name = "compute_dtype",
       .kind = text,
       .fallback = "auto",
       .identity = Identity::always,
       .aliases = {"bnb_4bit_compute_dtype", "dtype", "torch_dtype"},
       .choices = {"auto", "f32", "bf16", "bf16_amx", "fp32=f32", "float32=f32", "bfloat16=bf16"},
       .help = "operands of products; bf16_amx: bf16 summed as AMX sums it; auto: that where the processor has "
               "AMX, bf16 where it has AVX512-BF16 and on a GPU, else f32"},
      // The adapter.
      {.name = "lora_r",
       .kind = integer,
       .fallback = "64",
       .aliases = {"lora_rank"},
       .least = 1,
       .most = 4096,
       .help = "rank"},
      {.name = "lora_alpha", .kind = number, .fallback = "16", .least = 0, .help = "scale is alpha / rank"},
      {.name = "lora_dropout",
       .kind = number,
       .fallback = "0",
       .least = 0,
       .most = 0.99,
       .help = "of the adapters' input"},
      {.name = "lora_target_modules",
       .kind = list,
       .fallback = "all-linear",
       .aliases = {"lora_target", "lora_modules"},
       .help = "linears by the end of their names; all: every linear of the blocks"},
      {.name = "use_rslora",
       .kind = boolean,
       .fallback = "false",
       .aliases = {"peft_use_rslora"},
       .help = "scale is alpha / sqrt(rank)"},
      // Learning.
      {.name = "per_device_train_batch_size",
       .kind = integer,
       .fallback = "1",
       .aliases = {"micro_batch_size", "batch_size"},
       .least = 1,
       .help = "examples of one forward pass"},
      {.name = "gradient_accumulation_steps",
       .kind = integer,
       .fallback = "16",
       .least = 1,
       .help = "forward passes of one step"},
      {.name = "max_steps", .kind = integer, .fallback = "10000", .least = 1, .help = "optimizer steps"},
      {.name = "learning_rate",
       .kind = number,
       .fallback = "2e-4",
       .aliases = {"lr"},
       .least = 0,
       .help = "at its peak"},
      {.name = "lr_scheduler_type",
       .kind = text,
       .fallback = "constant",
       .aliases = {"lr_scheduler"},
       .choices = {"constant", "constant_with_warmup", "linear", "cosine"},
       .help = "course of the learning rate"},
      {.name = "warmup_ratio",
       .kind = number,
       .fallback = "0.03",
       .least = 0,
       .most = 1,
       .help = "of max_steps; used when warmup_steps is 0"},
      {.name = "warmup_steps",
       .kind = integer,
       .fallback = "0",
       .aliases = {"num_warmup_steps"},
       .least = 0,
       .help = "steps of linear warmup"},
      {.name = "optim",
       .kind = text,
       .fallback = "adamw_torch",
       .aliases = {"optimizer"},
       .choices = {"adamw_torch", "paged_adamw_32bit", "paged_adamw=paged_adamw_32bit", "adamw_8bit",
                   "adamw_bnb_8bit=adamw_8bit"},
       .help = "the optimizer; paged: its states lie in host memory and pass through a GPU in slabs, with "
               "equal numbers; 8bit: they are stored in eight bits, as bitsandbytes has them"},
      {.name = "adam_beta1", .kind = number, .fallback = "0.9", .least = 0, .most = 1, .help = "AdamW"},
      {.name = "adam_beta2", .kind = number, .fallback = "0.999", .least = 0, .most = 1, .help = "AdamW"},
      {.name = "adam_epsilon", .kind = number, .fallback = "1e-8", .least = 0, .help = "AdamW"},
      {.name = "weight_decay", .kind = number, .fallback = "0", .least = 0, .help = "AdamW"},
      {.name = "max_grad_norm",
       .kind = number,
       .fallback = "0.3",
       .aliases = {"clip_grad_norm"},
       .least = 0,
       .help = "gradients are clipped to this norm; 0: never"},
      {.name = "seed", .kind = integer, .fallback = "0", .least = 0, .help = "adapters and dropout"},
      {.name = "data_seed", .kind = integer, .fallback = "42", .least = 0, .help = "order of the examples"},
      // How it runs: none of these changes a number.
      {.name = "gradient_checkpointing",
       .kind = text,
       .fallback = "block",
       .identity = out,
       .aliases = {"enable_activation_checkpointing"},
       .choices = {"none", "selective", "block", "offload", "auto", "true=block", "yes=block", "on=block",
                   "full=block", "false=none", "no=none", "off=none", "unsloth=offload"},
       .help = "what is computed again in backward: less memory, more time; offload: as block, and what "
               "blocks keep waits in memory of the host, not of the GPU; auto: chosen for each pack of runs "
               "by the memory that there is"},
      {.name = "activation_offloading",
       .kind = boolean,
       .fallback = "false",
       .identity = out,
       .aliases = {"enable_activation_offloading"},
       .help = "with gradient_checkpointing: true, says that it is offload"},
      {.name = "base_cache",
       .kind = boolean,
       .fallback = "true",
       .identity = out,
       .aliases = {"cache_quantized_base"},
       .help = "keep the quantized base beside the model, in MODEL/.cache/qlora, and map it the next time"},
      {.name = "decode_numerics",
       .kind = text,
       .fallback = "fast",
       .identity = out,
       .choices = {"fast", "exact"},
       .help = "of generated answers: products of new tokens in whole numbers and, over a quantized base, an "
               "8-bit copy of the output head; or exact as in scoring"},
      {.name = "prompt_lookup_num_tokens",
       .kind = text,
       .fallback = "auto",
       .identity = out,
       .choices = {"auto", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
                   "none=0"},
       .help = "of generated answers: tokens that a step guesses from the text and reads beside the last one, "
               "at most; auto: as many as are measured to pay; changes no token; a GPU guesses none"},
      {.name = "per_device_eval_batch_size",
       .kind = integer,
       .fallback = "1",
       .identity = out,
       .aliases = {"eval_batch_size"},
       .least = 1,
       .help = "examples of one forward pass of the held-out loss"},
      // Evaluations while it trains; they change nothing of the run and have keys of their own.
      {.name = "eval_steps",
       .kind = integer,
       .fallback = "0",
       .identity = out,
       .least = 0,
       .help = "every so many steps do_eval and do_mmlu_eval are done; 0: at the end only"},
      {.name = "eval_strategy",
       .kind = text,
       .fallback = "auto",
       .identity = out,
       .aliases = {"evaluation_strategy"},
       .choices = {"no", "steps", "auto", "none=no"},
       .help = "says what eval_steps does: steps above 0, no at 0"},
      {.name = "do_eval",
       .kind = boolean,
       .fallback = "false",
       .identity = out,
       .help = "held-out loss every eval_steps and at the end"},
      {.name = "do_mmlu_eval",
       .kind = boolean,
       .fallback = "false",
       .identity = out,
       .aliases = {"do_bench_eval"},
       .help = "MMLU by protocol qlora, every eval_steps and at the end"},
      {.name = "mmlu_dataset",
       .kind = text,
       .fallback = "mmlu-fs",
       .identity = out,
       .choices = {"mmlu-fs", "mmlu-zs", "mmlu=mmlu-fs"},
       .help = "of do_mmlu_eval: five examples before a question, or none"},
      {.name = "mmlu_data",
       .kind = text,
       .fallback = "data/mmlu",
       .identity = out,
       .help = "its questions: QLoRA's folder of rendered prompts, or any that eval mmlu reads"},
      {.name = "mmlu_split",
       .kind = text,
       .fallback = "val",
       .identity = out,
       .aliases = {"bench_split"},
       .choices = {"val", "test", "eval=val", "validation=val"},
       .help = "which of them"},
      {.name = "mmlu_source_max_len",
       .kind = integer,
       .fallback = "2048",
       .identity = out,
       .aliases = {"bench_source_max_len"},
       .least = 1,
       .help = "most tokens of its prompts"},
      {.name = "max_mmlu_samples",
       .kind = integer,
       .fallback = "0",
       .identity = out,
       .aliases = {"max_bench_samples"},
       .least = 0,
       .help = "only the first so many questions; 0: all"},
      {.name = "output_dir",
       .kind = text,
       .fallback = "output",
       .identity = out,
       .help = "checkpoints and adapters lie below it"},
      {.name = "run_name",
       .kind = text,
       .identity = out,
       .aliases = {"wandb_name"},
       .help = "what to call the run; empty: by what is varied"},
      {.name = "logging_steps",
       .kind = integer,
       .fallback = "10",
       .identity = out,
       .aliases = {"log_every_n_steps"},
       .least = 1,
       .help = "every so many steps one is stored"},
      {.name = "save_steps",
       .kind = integer,
       .fallback = "500",
       .identity = out,
       .least = 1,
       .help = "every so many steps a checkpoint is written"},
      {.name = "save_total_limit",
       .kind = integer,
       .fallback = "40",
       .identity = out,
       .least = 1,
       .help = "so many checkpoints are kept"},
  };
}

std::vector<Translation> make_translations() {
  return {{"load_in_4bit", "bits", "4", "32", true},
          {"load_in_8bit", "bits", "8", ""},
          {"bf16", "compute_dtype", "bf16", ""},
          {"lora_target_linear", "lora_target_modules", "all-linear", ""},
          {"completion_only_loss", "train_on_source", "false", "true"},
          {"disable_gradient_checkpointing", "gradient_checkpointing", "none", "block"}};
}

std::vector<Unavailable> make_unavailable() {
  const std::vector<std::string> off = {"false", "no", "off", "auto", "none", "[]"};
  return {
      {{"fp16", "pure_bf16", "tf32"}, off, "this build computes in bf16 or f32: write compute_dtype: bf16"},
      {{"packing", "sample_packing", "neat_packing", "packed"},
       off,
       "examples are never padded here, so there is nothing to pack: leave it out"},
      {{"use_dora", "peft_use_dora"}, off, "this build has plain LoRA and use_rslora"},
      {{"modules_to_save", "lora_modules_to_save", "additional_target"},
       off,
       "this build trains LoRA adapters only"},
      {{"max_seq_len", "sequence_len", "cutoff_len", "max_length", "max_seq_length"},
       {},
       "give the two parts apart: source_max_len (prompt) and target_max_len (answer)"},
      {{"num_train_epochs", "num_epochs", "epochs"}, {}, "this build counts steps: give max_steps"},
      {{"adapter_name_or_path", "lora_model_dir", "adapter_checkpoint"},
       {},
       "every run starts with a fresh adapter"},
      {{"evals_per_epoch"}, {"no", "none"}, "do_eval and do_mmlu_eval are done every eval_steps"},
      {{"resume_from_checkpoint", "auto_resume_from_checkpoints"},
       {"true", "yes", "on", "auto"},
       "runs always go on from their last checkpoint"},
      {{"overwrite_output_dir"},
       off,
       "runs go on from what is there; to begin anew give another output_dir and another --db"},
      {{"bench_dataset"}, {"none"}, "give mmlu_data: PATH, and mmlu_dataset: mmlu-fs or mmlu-zs"},
      {{"saves_per_epoch"}, off, "give save_steps"},
      {{"report_to", "use_tensorboard"}, off, "results go to the store (--db)"},
  };
}

bool same_key(std::string_view a, std::string_view b) {
  auto plain = [](char c) { return c == '-' ? '_' : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return plain(x) == plain(y); });
}

bool among(const std::vector<std::string>& keys, std::string_view key) {
  return std::any_of(keys.begin(), keys.end(), [&](const std::string& k) { return same_key(k, key); });
}

const std::vector<Translation>& translations() {
  static const std::vector<Translation> table = make_translations();
  return table;
}

const std::vector<Unavailable>& unavailable() {
  static const std::vector<Unavailable> table = make_unavailable();
  return table;
}

bool same_letters(std::string_view a, std::string_view b) {
  auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

// Puts second spellings right; false when the value is no choice.
bool choose(const Option& option, std::string& text) {
  for (const std::string& choice : option.choices) {
    size_t equals = choice.find('=');
    if (!same_letters(choice.substr(0, equals), text)) continue;
    text = equals == std::string::npos ? choice : choice.substr(equals + 1);
    return true;
  }
  return false;
}

std::string list_choices(const Option& option) {
  std::string out;
  for (const std::string& choice : option.choices)
    if (choice.find('=') == std::string::npos) out += (out.empty() ? "" : ", ") + choice;
  return out;
}

void check_range(const Option& option, double value, const Where& where) {
  QLORA_CHECK(value >= option.least, usage, "{}: `{}` must be at least {}, found {}", where.text(),
              option.name, option.least, value);
  QLORA_CHECK(value <= option.most, usage, "{}: `{}` must be at most {}, found {}", where.text(), option.name,
              option.most, value);
}

// `all` is qlora.py's word for PEFT's all-linear; names are a set, so their order must not make another run.
std::vector<std::string> tidy_targets(std::vector<std::string> targets) {
  for (std::string& target : targets)
    if (target == "all") target = "all-linear";
  std::sort(targets.begin(), targets.end());
  targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
  return targets;
}

}  // namespace

std::span<const Option> options() {
  static const std::vector<Option> table = make_options();
  return table;
}

const Option* find_option(std::string_view name) {
  for (const Option& option : options())
    if (same_key(option.name, name)) return &option;
  return nullptr;
}

const Option* find_option_or_alias(std::string_view key) {
  for (const Option& option : options())
    if (same_key(option.name, key) || among(option.aliases, key)) return &option;
  return nullptr;
}

const Translation* find_translation(std::string_view key) {
  for (const Translation& t : translations())
    if (same_key(t.key, key)) return &t;
  return nullptr;
}

const Unavailable* find_unavailable(std::string_view key) {
  for (const Unavailable& u : unavailable())
    if (among(u.keys, key)) return &u;
  return nullptr;
}

std::vector<std::string> known_keys() {
  std::vector<std::string> keys;
  for (const Option& option : options()) {
    keys.push_back(option.name);
    keys.insert(keys.end(), option.aliases.begin(), option.aliases.end());
  }
  for (const Translation& t : translations()) keys.push_back(t.key);
  for (const Unavailable& u : unavailable()) keys.insert(keys.end(), u.keys.begin(), u.keys.end());
  return keys;
}

OptionValue read_option(const Option& option, const YamlNode& node) {
  OptionValue value = read_value(node, option.kind, option.name);
  if (auto* n = std::get_if<int64_t>(&value)) check_range(option, static_cast<double>(*n), node.where);
  if (auto* n = std::get_if<double>(&value)) check_range(option, *n, node.where);
  if (auto* words = std::get_if<std::vector<std::string>>(&value)) {
    QLORA_CHECK(!words->empty(), usage, "{}: `{}` is an empty list", node.where.text(), option.name);
    *words = tidy_targets(*words);
  }
  if (option.choices.empty()) return value;
  std::string text = to_string(value);
  QLORA_CHECK(choose(option, text), usage, "{}: `{}: {}` is not in this build; it can: {}", node.where.text(),
              option.name, text, list_choices(option));
  if (option.kind == ValueKind::text) value = text;
  return value;
}

OptionValue parse_option(const Option& option, std::string_view text) {
  YamlNode node;
  node.kind = YamlNode::Kind::scalar;
  node.text = text;
  return read_option(option, node);
}

std::string describe_options() {
  std::string out;
  for (const Option& option : options()) {
    std::string fallback = option.required ? "(required)" : option.fallback.empty() ? "-" : option.fallback;
    out += fmt::format("  {:<28} {:<12} {}", option.name, fallback, option.help);
    if (std::string choices = list_choices(option); !choices.empty()) out += fmt::format(" [{}]", choices);
    out += '\n';
  }
  return out;
}

}  // namespace qlora
