#include "core/models/hf_config.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <string_view>

#include "core/base/names.h"
#include "core/models/config_keys.h"

namespace qlora {

namespace {

// Which layers have a window.
enum class Windows : uint8_t {
  none,
  all,
  every_other,  // the first, the third and so on
  opt_in,       // only with use_sliding_window: true, those from max_window_layers on
};

// What an absent key means, and which switches a family has.
struct Family {
  const char* name;
  int64_t vocab, hidden, intermediate, layers, heads, max_positions;
  int64_t kv_heads = 0;  // 0 = as many as heads
  int64_t head_dim = 0;  // 0 = hidden / heads
  Windows windows = Windows::none;
  int64_t window = 0;            // of an absent sliding_window; 0 = none
  bool always_qkv_bias = false;  // else attention_bias decides for q, k, v and o
  bool head_norms = false;       // norms of q and k
  bool fused_linears = false;
  double norm_eps = 1e-6;
  bool tied = false;
  bool partial_rope = false;  // partial_rotary_factor is heeded
  const char* activation_key = "hidden_act";
  const char* activation = "silu";                 // the family computes no other
  void (*more)(const Keys&, HfConfig&) = nullptr;  // keys that no other family has
};

constexpr std::pair<const char*, Activation> kActivations[] = {{"silu", Activation::silu},
                                                               {"swish", Activation::silu},
                                                               {"gelu", Activation::gelu},
                                                               {"gelu_new", Activation::gelu_tanh},
                                                               {"gelu_fast", Activation::gelu_tanh},
                                                               {"gelu_pytorch_tanh", Activation::gelu_tanh},
                                                               {"relu", Activation::relu}};

std::optional<Activation> activation_named(std::string_view name) {
  for (const auto& [text, activation] : kActivations)
    if (name == text) return activation;
  return std::nullopt;
}

// The softcap that `key` names; null: none.
double softcap(const Keys& k, const char* key, double absent) {
  const double cap = k.number(key, k.is_null(key) ? 0 : absent);
  QLORA_CHECK(cap >= 0, data, "{}: {} must not be negative, found {}", k.origin(), key, cap);
  return cap;
}

void read_gemma2(const Keys& k, HfConfig& c) {
  c.query_scalar = k.number("query_pre_attn_scalar", 256);
  QLORA_CHECK(c.query_scalar > 0, data, "{}: query_pre_attn_scalar must be positive, found {}", k.origin(),
              c.query_scalar);
  QLORA_CHECK(!k.flag("use_bidirectional_attention", false), data,
              "{}: use_bidirectional_attention is not supported", k.origin());
  c.score_softcap = softcap(k, "attn_logit_softcapping", 50);
  c.logit_softcap = softcap(k, "final_logit_softcapping", 30);
}

constexpr Family kFamilies[] = {
    {.name = "llama",
     .vocab = 32000,
     .hidden = 4096,
     .intermediate = 11008,
     .layers = 32,
     .heads = 32,
     .max_positions = 2048},
    {.name = "mistral",
     .vocab = 32000,
     .hidden = 4096,
     .intermediate = 14336,
     .layers = 32,
     .heads = 32,
     .max_positions = 131072,
     .kv_heads = 8,
     .windows = Windows::all,
     .window = 4096},
    {.name = "qwen2",
     .vocab = 151936,
     .hidden = 4096,
     .intermediate = 22016,
     .layers = 32,
     .heads = 32,
     .max_positions = 32768,
     .kv_heads = 32,
     .windows = Windows::opt_in,
     .window = 4096,
     .always_qkv_bias = true},
    {.name = "qwen3",
     .vocab = 151936,
     .hidden = 4096,
     .intermediate = 22016,
     .layers = 32,
     .heads = 32,
     .max_positions = 32768,
     .kv_heads = 32,
     .head_dim = 128,
     .windows = Windows::opt_in,
     .window = 4096,
     .head_norms = true},
    {.name = "gemma2",
     .vocab = 256000,
     .hidden = 2304,
     .intermediate = 9216,
     .layers = 26,
     .heads = 8,
     .max_positions = 8192,
     .kv_heads = 4,
     .head_dim = 256,
     .windows = Windows::every_other,
     .window = 4096,
     .tied = true,
     .activation_key = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .more = read_gemma2},
    {.name = "phi3",
     .vocab = 32064,
     .hidden = 3072,
     .intermediate = 8192,
     .layers = 32,
     .heads = 32,
     .max_positions = 4096,
     .windows = Windows::all,
     .fused_linears = true,
     .norm_eps = 1e-5,
     .partial_rope = true},
};

std::vector<int64_t> read_windows(const Keys& k, const Family& f, int64_t layers) {
  const bool opt_in = f.windows == Windows::opt_in;
  const bool on = f.windows != Windows::none && (!opt_in || k.flag("use_sliding_window", false));
  // An absent key means the default, null none.
  const bool said = k.find("sliding_window") != nullptr, none = k.is_null("sliding_window");
  int64_t window = on && !none ? (said ? k.positive("sliding_window", 1) : f.window) : 0;
  int64_t first = opt_in ? k.whole("max_window_layers", 28) : 0;
  QLORA_CHECK(first >= 0, data, "{}: max_window_layers must not be negative, found {}", k.origin(), first);
  std::vector<int64_t> windows(static_cast<size_t>(layers), 0);
  const int64_t step = f.windows == Windows::every_other ? 2 : 1;
  for (int64_t i = first; i < layers; i += step) windows[static_cast<size_t>(i)] = window;
  const Json* types = k.find("layer_types");
  if (types == nullptr) return windows;
  QLORA_CHECK(types->is_array() && static_cast<int64_t>(types->size()) == layers, data,
              "{}: layer_types must name all {} layers", k.origin(), layers);
  const std::vector<std::string> known = {"full_attention", "sliding_attention"};
  for (size_t i = 0; i < windows.size(); ++i) {
    const Json& type = (*types)[i];
    const std::string name = type.is_string() ? type.get<std::string>() : type.dump();
    QLORA_CHECK(name == known[0] || name == known[1], data, "{}: layer_types: {}", k.origin(),
                unknown_name("type of layer", name, known));
    windows[i] = name == known[1] ? window : 0;
  }
  return windows;
}

void read_sizes(const Keys& k, const Family& f, HfConfig& c) {
  c.vocab_size = k.positive("vocab_size", f.vocab);
  c.hidden_size = k.positive("hidden_size", f.hidden);
  c.intermediate_size = k.positive("intermediate_size", f.intermediate);
  c.layers = k.positive("num_hidden_layers", f.layers, kMaxLayers);
  c.heads = k.positive("num_attention_heads", f.heads);
  c.kv_heads = k.positive("num_key_value_heads", f.kv_heads == 0 ? c.heads : f.kv_heads);
  QLORA_CHECK(c.heads % c.kv_heads == 0, data,
              "{}: num_attention_heads {} is no multiple of num_key_value_heads {}", k.origin(), c.heads,
              c.kv_heads);
  if (k.find("head_dim") == nullptr && f.head_dim == 0) {
    QLORA_CHECK(c.hidden_size % c.heads == 0, data,
                "{}: hidden_size {} is no multiple of num_attention_heads {}", k.origin(), c.hidden_size,
                c.heads);
  }
  c.head_dim = k.positive("head_dim", f.head_dim == 0 ? c.hidden_size / c.heads : f.head_dim);
  QLORA_CHECK(c.head_dim % 2 == 0, data, "{}: head_dim {} is odd, rotary embedding needs pairs", k.origin(),
              c.head_dim);
  c.max_positions = k.positive("max_position_embeddings", f.max_positions);
}

void read_switches(const Keys& k, const Family& f, HfConfig& c) {
  bool attention_bias = !f.always_qkv_bias && k.flag("attention_bias", false);
  c.qkv_bias = f.always_qkv_bias || attention_bias;
  c.o_bias = attention_bias;
  c.mlp_bias = !f.always_qkv_bias && k.flag("mlp_bias", false);
  c.head_norms = f.head_norms;
  c.fused_linears = f.fused_linears;
  c.tied_head = k.flag("tie_word_embeddings", f.tied);
  c.activation = read_activation(k, f.activation_key, f.activation);
  const std::string said = k.text(f.activation_key, f.activation);
  QLORA_CHECK(c.activation == activation_named(f.activation), data, "{}: {} `{}`; this family computes {}",
              k.origin(), f.activation_key, said, f.activation);
}

int32_t one_id(const Keys& k, const char* key) {
  std::vector<int32_t> ids = k.ids(key);
  return ids.empty() ? -1 : ids.front();
}

void read_llama(const Keys& k, const Family& f, HfConfig& c) {
  read_sizes(k, f, c);
  read_switches(k, f, c);
  c.norm_eps = k.number("rms_norm_eps", f.norm_eps);
  c.rope = read_rope(k, "rope_theta", f.partial_rope ? "partial_rotary_factor" : nullptr);
  set_rotary(k, c);
  c.windows = read_windows(k, f, c.layers);
  if (f.more != nullptr) f.more(k, c);
}

// Adds the end tokens of generation_config.json beside config.json, if it is there: models that were taught
// to chat name the ends of their turns in that file alone.
void add_end_tokens(const Path& path, std::vector<int32_t>& ids) {
  if (!std::filesystem::exists(path)) return;
  const Json json = parse_json(read_file(path), path.string());
  for (int32_t id : Keys(json, path.string()).ids("eos_token_id"))
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

// What the family says.
void read_family(const Keys& k, HfConfig& c) {
  std::vector<std::string> known;
  for (const Family& f : kFamilies) {
    if (c.model_type == f.name) return read_llama(k, f, c);
    known.emplace_back(f.name);
  }
  for (const ConfigReader& f : layer_norm_readers()) {
    if (c.model_type == f.model_type) return f.read(k, c);
    known.emplace_back(f.model_type);
  }
  fail(ErrorKind::data, "{}: {}", k.origin(), unknown_name("model_type", c.model_type, known));
}

}  // namespace

RopeConfig read_rope(const Keys& top, const char* theta_key, const char* partial_key, double partial) {
  RopeConfig r;
  r.theta = top.number(theta_key, r.theta);
  r.partial = partial_key != nullptr ? top.number(partial_key, partial) : partial;
  const Json* scaling = top.find("rope_parameters");  // transformers 5
  if (scaling == nullptr) scaling = top.find("rope_scaling");
  if (scaling != nullptr) {
    Keys keys(*scaling, top.origin() + ": rope parameters");
    for (const auto& [name, value] : scaling->items()) {
      QLORA_CHECK(!value.is_object(), data, "{}: {} with parameters of its own is not supported",
                  keys.origin(), name);
    }
    r.theta = keys.number("rope_theta", r.theta);
    r.type = keys.text("rope_type", keys.text("type", r.type));
    r.factor = keys.number("factor", r.factor);
    r.low_freq_factor = keys.number("low_freq_factor", r.low_freq_factor);
    r.high_freq_factor = keys.number("high_freq_factor", r.high_freq_factor);
    r.original_max_position = keys.whole("original_max_position_embeddings", 0);
    r.partial = keys.number("partial_rotary_factor", r.partial);
  }
  // Some families have another key for the share, or none.
  const double said = top.number("partial_rotary_factor", r.partial);
  QLORA_CHECK(said == r.partial, data, "{}: partial_rotary_factor {}; expected {}", top.origin(), said,
              r.partial);
  QLORA_CHECK(r.partial > 0 && r.partial <= 1 && (partial_key != nullptr || r.partial == 1), data,
              "{}: partial_rotary_factor {}; expected {}", top.origin(), r.partial,
              partial_key != nullptr ? "more than 0 and at most 1" : "1");
  const std::vector<std::string> known = {"default", "linear", "llama3"};
  QLORA_CHECK(
      r.type != "longrope" && r.type != "su", data,
      "{}: rope_type `{}` (scaled by tables of factors) is not supported; a variant of the model for short "
      "contexts has none",
      top.origin(), r.type);
  QLORA_CHECK(std::find(known.begin(), known.end(), r.type) != known.end(), data, "{}: {}", top.origin(),
              unknown_name("rope_type", r.type, known));
  QLORA_CHECK(r.theta > 0 && r.factor > 0, data, "{}: rope_theta {} and factor {} must be positive",
              top.origin(), r.theta, r.factor);
  QLORA_CHECK(r.type != "llama3" || (r.original_max_position > 0 && r.low_freq_factor > 0 &&
                                     r.high_freq_factor > r.low_freq_factor),
              data,
              "{}: rope_type llama3 needs original_max_position_embeddings, and low_freq_factor below "
              "high_freq_factor",
              top.origin());
  return r;
}

void set_rotary(const Keys& k, HfConfig& c) {
  c.rotary_dim = static_cast<int64_t>(static_cast<double>(c.head_dim) * c.rope.partial);
  QLORA_CHECK(c.rotary_dim > 0 && c.rotary_dim % 2 == 0, data,
              "{}: {} elements of a head are rotated; an even number is needed, 2 at least", k.origin(),
              c.rotary_dim);
}

Activation read_activation(const Keys& k, const char* key, const char* fallback) {
  const std::string name = k.text(key, fallback);
  if (const std::optional<Activation> found = activation_named(name)) return *found;
  std::vector<std::string> known;
  for (const auto& [text, activation] : kActivations) known.emplace_back(text);
  fail(ErrorKind::data, "{}: {}: {}", k.origin(), key, unknown_name("activation", name, known));
}

HfConfig read_hf_config(const Path& path) {
  Json json = parse_json(read_file(path), path.string());
  Keys k(json, path.string());
  HfConfig c;
  c.model_type = k.text("model_type", "");
  read_family(k, c);
  if (c.embedding_size == 0) c.embedding_size = c.hidden_size;
  QLORA_CHECK(k.find("quantization_config") == nullptr, data,
              "{}: the weights are already quantized (quantization_config); give the model in full precision",
              k.origin());
  c.dtype = k.text("dtype", k.text("torch_dtype", ""));
  c.eos_ids = k.ids("eos_token_id");
  add_end_tokens(path.parent_path() / "generation_config.json", c.eos_ids);
  c.bos_id = one_id(k, "bos_token_id");
  c.pad_id = one_id(k, "pad_token_id");
  return c;
}

std::string read_model_type(const Path& path) {
  Json json = parse_json(read_file(path), path.string());
  return Keys(json, path.string()).text("model_type", "");
}

}  // namespace qlora
