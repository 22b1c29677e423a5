#pragma once
// For tests: small random models as Hugging Face folders, adapters for them, and batches. All a pure function
// of seeds.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/philox.h"
#include "core/base/test_data.h"
#include "core/io/safetensors.h"
#include "core/models/model.h"
#include "core/models/weights.h"

namespace qlora::test {

// Code of the kernels that a family runs and the ones before it in the lists of families do not.
enum class NewKernels : uint8_t {
  none,
  f32,  // but no product and no attention, which alone know bf16 operands
  all,
};

struct TinyConfig {
  std::string model_type = "llama";
  int64_t vocab = 61, hidden = 24, intermediate = 40, layers = 2, heads = 4, kv_heads = 2, head_dim = 8;
  int64_t max_positions = 256;
  int64_t window = 0;  // mistral; 0 = none
  bool tied = false;
  bool biases = false;    // llama's attention_bias and mlp_bias; qwen2 always has those of q, k and v
  std::string more = {};  // further members of config.json, of other families than these
  uint64_t seed = 1;
  NewKernels new_kernels = NewKernels::all;
};

// Whether a list of families asks kernels for something new by this one. Backends that take seconds a model
// leave the others out.
inline bool asks_anew(const TinyConfig& c, Operands operands) {
  return c.new_kernels == NewKernels::all || (c.new_kernels == NewKernels::f32 && !is_bf16(operands));
}

// Uniform numbers in center +- radius, a function of seed and name.
inline std::vector<float> random_floats(uint64_t seed, const std::string& name, int64_t n, double radius,
                                        double center = 0) {
  PhiloxStream stream(mix_seed(seed, stream_of(name.data(), name.size())));
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v)
    x = static_cast<float>(center + radius * (2 * static_cast<double>(stream.uniform()) - 1));
  return v;
}

inline bool is_llama_like(const TinyConfig& c) {
  return c.model_type == "llama" || c.model_type == "mistral" || c.model_type.starts_with("qwen");
}

// The sizes under all the names that families have for them.
inline std::string tiny_config_of_any_family(const TinyConfig& c) {
  return fmt::format(
      R"({{"model_type": "{}", "vocab_size": {}, "hidden_size": {}, "n_embd": {}, "intermediate_size": {},
 "ffn_dim": {}, "ffn_hidden_size": {}, "n_inner": {}, "num_hidden_layers": {}, "n_layer": {},
 "num_attention_heads": {}, "n_head": {}, "max_position_embeddings": {}, "n_positions": {},
 "tie_word_embeddings": {}, {}"bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}}
)",
      c.model_type, c.vocab, c.hidden, c.hidden, c.intermediate, c.intermediate, c.intermediate,
      c.intermediate, c.layers, c.layers, c.heads, c.heads, c.max_positions, c.max_positions, c.tied,
      c.more.empty() ? "" : c.more + ", ");
}

inline std::string tiny_config_json(const TinyConfig& c) {
  if (!is_llama_like(c)) return tiny_config_of_any_family(c);
  std::string window = c.window > 0 ? std::to_string(c.window) : "null";
  return fmt::format(
      R"({{"model_type": "{}", "vocab_size": {}, "hidden_size": {}, "intermediate_size": {},
 "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {},
 "head_dim": {}, "max_position_embeddings": {}, "rms_norm_eps": 1e-05,
 "rope_theta": 10000.0, "rope_scaling": null, "hidden_act": "silu",
 "sliding_window": {}, "attention_bias": {}, "mlp_bias": {}, "tie_word_embeddings": {},
 "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}}
)",
      c.model_type, c.vocab, c.hidden, c.intermediate, c.layers, c.heads, c.kv_heads, c.head_dim,
      c.max_positions, window, c.biases, c.biases, c.tied);
}

// Collects the tensors of a tiny model and writes them.
class TinyWeights {
 public:
  explicit TinyWeights(uint64_t seed) : seed_(seed) {}
  void add(const std::string& name, std::vector<int64_t> shape, double radius, double center = 0) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    values_.push_back({name, std::move(shape), random_floats(seed_, name, n, radius, center)});
  }
  void add_linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    add(name + ".weight", {out, in}, 1.7 / std::sqrt(static_cast<double>(in)));
    if (bias) add(name + ".bias", {out}, 0.3);
  }
  void write(const Path& path) const {
    std::vector<TensorOut> out;
    for (const Value& v : values_)
      out.push_back({v.name, DType::f32, v.shape, std::as_bytes(std::span(v.floats))});
    write_safetensors(path, out, {{"format", "pt"}});
  }

 private:
  struct Value {
    std::string name;
    std::vector<int64_t> shape;
    std::vector<float> floats;
  };
  uint64_t seed_;
  std::vector<Value> values_;
};

// Every weight that the family asks for, of a size that its name and shape tell.
inline void write_tiny_model_of_any_family(const Path& folder, const TinyConfig& c) {
  write_file(folder / "config.json", tiny_config_json(c));
  const ModelFolder wanted = announced_weights(folder / "config.json");
  TinyWeights w(c.seed);
  for (const std::string& name : wanted.names()) {
    const std::vector<int64_t>& shape = wanted.find(name)->shape;
    const bool linear = name.find(".layers.") != name.npos || name.find(".h.") != name.npos;
    if (name.ends_with(".bias")) {
      w.add(name, shape, 0.3);
    } else if (shape.size() == 1) {
      w.add(name, shape, 0.3, 1);
    } else {
      w.add(name, shape, linear ? 1.7 / std::sqrt(static_cast<double>(std::min(shape[0], shape[1]))) : 0.6);
    }
  }
  w.write(folder / "model.safetensors");
}

// Writes config.json and model.safetensors into an existing folder.
inline void write_tiny_model(const Path& folder, const TinyConfig& c = {}) {
  if (!is_llama_like(c)) return write_tiny_model_of_any_family(folder, c);
  TinyWeights w(c.seed);
  bool qkv_bias = c.biases || c.model_type == "qwen2";
  w.add("model.embed_tokens.weight", {c.vocab, c.hidden}, 1);
  w.add("model.norm.weight", {c.hidden}, 0.3, 1);
  if (!c.tied) w.add("lm_head.weight", {c.vocab, c.hidden}, 0.4);
  for (int64_t i = 0; i < c.layers; ++i) {
    std::string layer = fmt::format("model.layers.{}.", i), attention = layer + "self_attn.",
                mlp = layer + "mlp.";
    w.add(layer + "input_layernorm.weight", {c.hidden}, 0.3, 1);
    w.add(layer + "post_attention_layernorm.weight", {c.hidden}, 0.3, 1);
    if (c.model_type == "qwen3")
      for (const char* norm : {"q_norm.weight", "k_norm.weight"})
        w.add(attention + norm, {c.head_dim}, 0.3, 1);
    w.add_linear(attention + "q_proj", c.heads * c.head_dim, c.hidden, qkv_bias);
    w.add_linear(attention + "k_proj", c.kv_heads * c.head_dim, c.hidden, qkv_bias);
    w.add_linear(attention + "v_proj", c.kv_heads * c.head_dim, c.hidden, qkv_bias);
    w.add_linear(attention + "o_proj", c.hidden, c.heads * c.head_dim, c.biases);
    w.add_linear(mlp + "gate_proj", c.intermediate, c.hidden, c.biases);
    w.add_linear(mlp + "up_proj", c.intermediate, c.hidden, c.biases);
    w.add_linear(mlp + "down_proj", c.hidden, c.intermediate, c.biases);
  }
  write_file(folder / "config.json", tiny_config_json(c));
  w.write(folder / "model.safetensors");
}

// Writes a tiny model to a temporary folder and loads it.
inline std::shared_ptr<const Model> load_tiny_model(Memory& memory, const TinyConfig& c = {},
                                                    const LoadOptions& options = {}) {
  TemporaryFolder folder;
  write_tiny_model(folder.path(), c);
  return load_model(folder.path(), memory, options);
}

struct TinyLora {
  int64_t rank = 4;
  float dropout = 0;
  uint64_t seed = 1;
  std::string only = {};  // linears whose names end so; empty = all
};

// An adapter with A and B both random (a fresh one has B = 0, and half of its gradients with it).
inline Adapter make_tiny_adapter(const Model& model, Memory& memory, DType type, const TinyLora& c = {}) {
  Adapter adapter;
  auto param = [&](const std::string& name, Shape shape) {
    std::vector<float> v = random_floats(c.seed, name, shape[0] * shape[1], 0.4);
    return Param{name, Tensor::from_floats(memory, shape, type, v, Tag::adapters),
                 Tensor::zeros(memory, shape, type, Tag::gradients)};
  };
  for (const LinearInfo& l : model.linears()) {
    if (!l.name.ends_with(c.only)) continue;
    adapter.lora[l.name] = {param(l.name + ".lora_A", {c.rank, l.in}),
                            param(l.name + ".lora_B", {l.out, c.rank}), 2.0 / static_cast<double>(c.rank),
                            c.dropout};
  }
  return adapter;
}

// Others with what only they have.
inline const TinyConfig kTinyGemma2{
    .model_type = "gemma2",
    .layers = 3,
    .tied = true,
    .more = R"("head_dim": 8, "num_key_value_heads": 2, "sliding_window": 5, "query_pre_attn_scalar": 12,
 "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0)"};
inline const TinyConfig kTinyPhi3{.model_type = "phi3",
                                  .more = R"("head_dim": 8, "num_key_value_heads": 2, "sliding_window": 9)",
                                  .new_kernels = NewKernels::none};

// One of each family with LayerNorm, each with what only it has.
inline const std::vector<TinyConfig>& tiny_layer_norm_models() {
  static const std::vector<TinyConfig> all = {
      {.model_type = "gpt_neox",
       .hidden = 32,
       .more = R"("rotary_pct": 0.5)",
       .new_kernels = NewKernels::f32},
      {.model_type = "opt",
       .hidden = 32,
       .tied = true,
       .more = R"("do_layer_norm_before": false, "word_embed_proj_dim": 20)",
       .new_kernels = NewKernels::f32},
      {.model_type = "gpt2", .hidden = 32, .tied = true, .new_kernels = NewKernels::none},
      {.model_type = "falcon", .hidden = 32, .tied = true, .new_kernels = NewKernels::none},
  };
  return all;
}

// What one run contributes to a batch: examples, of which the first has index `first` in the effective batch.
struct TinyRun {
  Adapter* adapter = nullptr;
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t first = 0;
  std::vector<std::vector<int32_t>> examples;
};

// Random tokens: `lengths` examples of a run.
inline std::vector<std::vector<int32_t>> random_examples(uint64_t seed, const std::vector<int64_t>& lengths,
                                                         int64_t vocab) {
  PhiloxStream stream(mix_seed(seed, 77));
  std::vector<std::vector<int32_t>> examples;
  for (int64_t n : lengths) {
    examples.emplace_back();
    for (int64_t i = 0; i < n; ++i) {
      examples.back().push_back(static_cast<int32_t>(stream.below(static_cast<uint32_t>(vocab))));
    }
  }
  return examples;
}

// One axis with the examples of all runs. Targets are the next tokens, except in the first third of an
// example.
inline Batch make_tiny_batch(const std::vector<TinyRun>& runs) {
  Batch batch;
  Axis& axis = batch.axis;
  axis.cu = {0};
  for (const TinyRun& run : runs) {
    RunRows rows{.lo = axis.rows()};
    for (size_t e = 0; e < run.examples.size(); ++e) {
      const std::vector<int32_t>& ids = run.examples[e];
      for (size_t i = 0; i < ids.size(); ++i) {
        axis.tokens.push_back(ids[i]);
        axis.positions.push_back(static_cast<int32_t>(i));
        axis.keys.push_back({run.first + static_cast<uint32_t>(e), static_cast<uint32_t>(i)});
        bool label = i + 1 < ids.size() && i + 1 >= ids.size() / 3;
        batch.targets.push_back(label ? ids[i + 1] : -100);
        rows.labels += label ? 1 : 0;
      }
      axis.cu.push_back(static_cast<int32_t>(axis.rows()));
    }
    rows.hi = axis.rows();
    axis.spans.push_back({rows.lo, rows.hi, run.adapter, run.seed, run.step});
    batch.runs.push_back(rows);
  }
  return batch;
}

}  // namespace qlora::test
