#include "core/models/hf_config.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/names.h"

namespace qlora {

namespace {

constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxLayers = 1 << 16;

// What an absent key means, and which switches a family has.
struct Family {
  const char* name;
  int64_t vocab, hidden, intermediate, layers, heads, max_positions;
  int64_t kv_heads = 0;           // 0 = as many as heads
  int64_t head_dim = 0;           // 0 = hidden / heads
  int64_t window = 0;             // of an absent sliding_window; 0 = the family has none
  bool window_is_opt_in = false;  // only with use_sliding_window: true, from layer max_window_layers on
  bool always_qkv_bias = false;   // else attention_bias decides for q, k, v and o
  bool head_norms = false;        // norms of q and k
};

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
     .window = 4096},
    {.name = "qwen2",
     .vocab = 151936,
     .hidden = 4096,
     .intermediate = 22016,
     .layers = 32,
     .heads = 32,
     .max_positions = 32768,
     .kv_heads = 32,
     .window = 4096,
     .window_is_opt_in = true,
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
     .window = 4096,
     .window_is_opt_in = true,
     .head_norms = true},
};

const Family& family(const std::string& name, const std::string& origin) {
  std::vector<std::string> known;
  for (const Family& f : kFamilies) {
    if (f.name == name) return f;
    known.emplace_back(f.name);
  }
  fail(ErrorKind::data, "{}: {}", origin, unknown_name("model_type", name, known));
}

// A whole number that int64_t does not hold.
bool wraps(const Json& number) {
  return number.is_number_unsigned() && !std::in_range<int64_t>(number.get<uint64_t>());
}

// The keys of one JSON object; a null counts as absent.
class Keys {
 public:
  Keys(const Json& json, std::string origin) : json_(json), origin_(std::move(origin)) {
    QLORA_CHECK(json.is_object(), data, "{}: expected a JSON object", origin_);
  }

  const Json* find(const char* key) const {
    auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  bool is_null(const char* key) const { return json_.contains(key) && find(key) == nullptr; }
  int64_t whole(const char* key, int64_t fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_number_integer() && !wraps(*v), data, "{}: {} must be a whole number, found {}",
                origin_, key, v->dump());
    return v->get<int64_t>();
  }
  int64_t positive(const char* key, int64_t fallback, int64_t most = kMaxSize) const {
    int64_t v = whole(key, fallback);
    QLORA_CHECK(v > 0, data, "{}: {} must be positive, found {}", origin_, key, v);
    QLORA_CHECK(v <= most, data, "{}: {} must be at most {}, found {}", origin_, key, most, v);
    return v;
  }
  double number(const char* key, double fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_number(), data, "{}: {} must be a number, found {}", origin_, key, v->dump());
    return v->get<double>();
  }
  bool flag(const char* key, bool fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_boolean(), data, "{}: {} must be true or false, found {}", origin_, key, v->dump());
    return v->get<bool>();
  }
  std::string text(const char* key, const std::string& fallback) const {
    const Json* v = find(key);
    if (v == nullptr) return fallback;
    QLORA_CHECK(v->is_string(), data, "{}: {} must be a string, found {}", origin_, key, v->dump());
    return v->get<std::string>();
  }
  // A number, a list of numbers, or nothing.
  std::vector<int32_t> ids(const char* key) const {
    const Json* v = find(key);
    if (v == nullptr) return {};
    std::vector<int32_t> all;
    for (const Json& id : v->is_array() ? *v : Json::array({*v})) {
      QLORA_CHECK(id.is_number_integer() && std::in_range<int32_t>(id.get<int64_t>()) && !wraps(id), data,
                  "{}: {} must hold token ids, found {}", origin_, key, v->dump());
      all.push_back(id.get<int32_t>());
    }
    return all;
  }
  const std::string& origin() const { return origin_; }

 private:
  const Json& json_;
  std::string origin_;
};

RopeConfig read_rope(const Keys& top) {
  RopeConfig r;
  r.theta = top.number("rope_theta", r.theta);
  const Json* scaling = top.find("rope_parameters");  // transformers 5
  if (scaling == nullptr) scaling = top.find("rope_scaling");
  if (scaling != nullptr) {
    Keys keys(*scaling, top.origin() + ": rope parameters");
    r.theta = keys.number("rope_theta", r.theta);
    r.type = keys.text("rope_type", keys.text("type", r.type));
    r.factor = keys.number("factor", r.factor);
    r.low_freq_factor = keys.number("low_freq_factor", r.low_freq_factor);
    r.high_freq_factor = keys.number("high_freq_factor", r.high_freq_factor);
    r.original_max_position = keys.whole("original_max_position_embeddings", 0);
    QLORA_CHECK(keys.number("partial_rotary_factor", 1) == 1, data, "{}: partial_rotary_factor other than 1",
                keys.origin());
  }
  const std::vector<std::string> known = {"default", "linear", "llama3"};
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

std::vector<int64_t> read_windows(const Keys& k, const Family& f, int64_t layers) {
  bool on = f.window > 0 && (!f.window_is_opt_in || k.flag("use_sliding_window", false));
  bool none = k.is_null("sliding_window");  // an absent key means the default
  int64_t window = on && !none ? k.positive("sliding_window", f.window) : 0;
  int64_t first = f.window_is_opt_in ? k.whole("max_window_layers", 28) : 0;
  QLORA_CHECK(first >= 0, data, "{}: max_window_layers must not be negative, found {}", k.origin(), first);
  std::vector<int64_t> windows(static_cast<size_t>(layers), 0);
  for (int64_t i = first; i < layers; ++i) windows[static_cast<size_t>(i)] = window;
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
  c.tied_head = k.flag("tie_word_embeddings", false);
  std::string activation = k.text("hidden_act", "silu");
  QLORA_CHECK(activation == "silu", data, "{}: hidden_act `{}`; this family computes silu", k.origin(),
              activation);
  QLORA_CHECK(k.find("quantization_config") == nullptr, data,
              "{}: the weights are already quantized (quantization_config); give the model in full precision",
              k.origin());
}

int32_t one_id(const Keys& k, const char* key) {
  std::vector<int32_t> ids = k.ids(key);
  return ids.empty() ? -1 : ids.front();
}

}  // namespace

HfConfig read_hf_config(const Path& path) {
  Json json = parse_json(read_file(path), path.string());
  Keys k(json, path.string());
  HfConfig c;
  c.model_type = k.text("model_type", "");
  const Family& f = family(c.model_type, k.origin());
  read_sizes(k, f, c);
  read_switches(k, f, c);
  c.norm_eps = k.number("rms_norm_eps", c.norm_eps);
  c.rope = read_rope(k);
  c.windows = read_windows(k, f, c.layers);
  c.dtype = k.text("dtype", k.text("torch_dtype", ""));
  c.eos_ids = k.ids("eos_token_id");
  c.bos_id = one_id(k, "bos_token_id");
  c.pad_id = one_id(k, "pad_token_id");
  return c;
}

std::string read_model_type(const Path& path) {
  Json json = parse_json(read_file(path), path.string());
  return Keys(json, path.string()).text("model_type", "");
}

}  // namespace qlora
