#include "core/io/gguf_import.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/io/gguf.h"
#include "core/io/gguf_tokenizer.h"
#include "core/io/safetensors.h"

namespace qlora {
namespace {

constexpr const char* kMarker = "qlora_import.json";  // what makes a folder an import

struct LlamaShape {
  int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, mlp = 0, vocab = 0, context = 0;
  double rope_theta = 0, eps = 0;
  bool tied = false;
};

// Where a tensor of the folder comes from, and the number of heads whose rows are to be put in order (0:
// none).
struct Item {
  std::string hf_name, gguf_name;
  std::vector<int64_t> shape;
  int64_t heads = 0;
};

// A size of the model; without a fallback it must be there.
int64_t size_of(const GgufFile& file, const std::string& key, int64_t fallback = 0) {
  const int64_t value = file.integer(key).value_or(fallback);
  QLORA_CHECK(value > 0 && value <= std::numeric_limits<int32_t>::max(), data,
              "{}: the metadata {} is missing or not a size: {}", file.path().string(), key, value);
  return value;
}

double positive(const GgufFile& file, const std::string& key, double fallback = 0) {
  const double value = file.number(key).value_or(fallback);
  QLORA_CHECK(std::isfinite(value) && value > 0, data, "{}: the metadata {} is missing or not positive: {}",
              file.path().string(), key, value);
  return value;
}

// Older files give the factor alone, under either name; 0 means none.
bool scales_rope(const GgufFile& file) {
  for (const char* key : {"llama.rope.scale_linear", "llama.rope.scaling.factor"}) {
    const double factor = file.number(key).value_or(1);
    if (factor != 1 && factor != 0) return true;
  }
  return file.text("llama.rope.scaling.type").value_or("none") != "none" ||
         file.tensors().count("rope_freqs.weight") != 0;
}

// Features of the architecture that plain LLaMA configurations cannot say.
void refuse_variants(const GgufFile& file) {
  const std::string path = file.path().string();
  const std::string architecture = file.text("general.architecture").value_or("none");
  QLORA_CHECK(architecture == "llama", data, "{}: the architecture is `{}`; only `llama` can be imported",
              path, architecture);
  QLORA_CHECK(file.integer("llama.expert_count").value_or(0) == 0, data,
              "{}: a mixture of experts, which is not supported", path);
  QLORA_CHECK(!scales_rope(file), data,
              "{}: scaled rotary embeddings cannot be imported from GGUF; use the original model folder",
              path);
}

LlamaShape shape_of(const GgufFile& file) {
  refuse_variants(file);
  const std::string path = file.path().string();
  LlamaShape s;
  s.layers = size_of(file, "llama.block_count");
  QLORA_CHECK(static_cast<size_t>(s.layers) <= file.tensors().size(), data,
              "{}: llama.block_count is {}, but there are {} tensors", path, s.layers, file.tensors().size());
  s.hidden = size_of(file, "llama.embedding_length");
  s.heads = size_of(file, "llama.attention.head_count");
  s.kv_heads = size_of(file, "llama.attention.head_count_kv", s.heads);
  s.mlp = size_of(file, "llama.feed_forward_length");
  s.context = size_of(file, "llama.context_length");
  s.head_dim = size_of(file, "llama.attention.key_length", s.hidden / s.heads);
  s.rope_theta = positive(file, "llama.rope.freq_base", 10000);
  s.eps = positive(file, "llama.attention.layer_norm_rms_epsilon");
  QLORA_CHECK(s.heads % s.kv_heads == 0 && s.head_dim % 2 == 0, data,
              "{}: {} heads of {} with {} key-value heads do not fit", path, s.heads, s.head_dim, s.kv_heads);
  const int64_t rotary = file.integer("llama.rope.dimension_count").value_or(s.head_dim);
  QLORA_CHECK(rotary == s.head_dim, data,
              "{}: rotary embeddings on {} of {} dimensions, which LLaMA does not know", path, rotary,
              s.head_dim);
  const auto embedding = file.tensors().find("token_embd.weight");
  QLORA_CHECK(embedding != file.tensors().end(), data, "{}: no tensor `token_embd.weight`", path);
  s.vocab = embedding->second.shape[0];
  s.tied = file.tensors().count("output.weight") == 0;
  return s;
}

std::vector<Item> items_of(const LlamaShape& s) {
  std::vector<Item> items = {{"model.embed_tokens.weight", "token_embd.weight", {s.vocab, s.hidden}},
                             {"model.norm.weight", "output_norm.weight", {s.hidden}}};
  if (!s.tied) items.push_back({"lm_head.weight", "output.weight", {s.vocab, s.hidden}});
  const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string hf = fmt::format("model.layers.{}.", i), gguf = fmt::format("blk.{}.", i);
    auto add = [&](const char* to, const char* from, std::vector<int64_t> shape, int64_t heads = 0) {
      items.push_back({hf + to + ".weight", gguf + from + ".weight", std::move(shape), heads});
    };
    add("input_layernorm", "attn_norm", {s.hidden});
    add("self_attn.q_proj", "attn_q", {q, s.hidden}, s.heads);
    add("self_attn.k_proj", "attn_k", {kv, s.hidden}, s.kv_heads);
    add("self_attn.v_proj", "attn_v", {kv, s.hidden});
    add("self_attn.o_proj", "attn_output", {s.hidden, q});
    add("post_attention_layernorm", "ffn_norm", {s.hidden});
    add("mlp.gate_proj", "ffn_gate", {s.mlp, s.hidden});
    add("mlp.up_proj", "ffn_up", {s.mlp, s.hidden});
    add("mlp.down_proj", "ffn_down", {s.hidden, s.mlp});
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.hf_name < b.hf_name; });
  return items;
}

// Every tensor of the file is used, and every one that is needed is there in its shape.
void check_tensors(const GgufFile& file, const std::vector<Item>& items) {
  const std::string path = file.path().string();
  for (const Item& item : items) {
    auto at = file.tensors().find(item.gguf_name);
    QLORA_CHECK(at != file.tensors().end(), data, "{}: no tensor `{}`", path, item.gguf_name);
    QLORA_CHECK(at->second.shape == item.shape, data, "{}: tensor `{}` has the shape [{}], expected [{}]",
                path, item.gguf_name, fmt::join(at->second.shape, ", "), fmt::join(item.shape, ", "));
  }
  for (const auto& [name, tensor] : file.tensors())
    QLORA_CHECK(std::any_of(items.begin(), items.end(), [&](const Item& i) { return i.gguf_name == name; }),
                data, "{}: tensor `{}` has no place in a LLaMA model", path, name);
}

// The row of the file that holds row `row`: llama.cpp keeps the two halves of a rotary pair side by side,
// Hugging Face half a head apart.
int64_t source_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, at = row % head_dim, half = head_dim / 2;
  return head * head_dim + 2 * (at % half) + at / half;
}

std::vector<float> decode(const GgufTensor& tensor, const Item& item) {
  std::vector<float> out(static_cast<size_t>(tensor.size()));
  const int64_t columns = tensor.shape.back(), rows = tensor.size() / columns;
  const auto row_bytes = static_cast<int64_t>(tensor.bytes.size()) / rows;
  parallel_for(rows, 16, [&](int64_t lo, int64_t hi) {
    for (int64_t r = lo; r < hi; ++r) {
      const int64_t from = item.heads == 0 ? r : source_row(r, rows / item.heads);
      decode_gguf(*tensor.type,
                  tensor.bytes.subspan(static_cast<size_t>(from * row_bytes), static_cast<size_t>(row_bytes)),
                  out.data() + r * columns);
    }
  });
  return out;
}

// bos_token_id and its like, for both configuration files.
void add_special_ids(const GgufFile& file, Json& config) {
  for (auto [to, from] : {std::pair{"bos_token_id", "bos_token_id"},
                          {"eos_token_id", "eos_token_id"},
                          {"pad_token_id", "padding_token_id"}})
    if (auto id = file.integer(std::string("tokenizer.ggml.") + from)) config[to] = *id;
}

Json config_of(const GgufFile& file, const LlamaShape& s) {
  Json config = {{"architectures", Json::array({"LlamaForCausalLM"})},
                 {"model_type", "llama"},
                 {"hidden_size", s.hidden},
                 {"intermediate_size", s.mlp},
                 {"num_hidden_layers", s.layers},
                 {"num_attention_heads", s.heads},
                 {"num_key_value_heads", s.kv_heads},
                 {"head_dim", s.head_dim},
                 {"vocab_size", s.vocab},
                 {"rms_norm_eps", s.eps},
                 {"rope_theta", s.rope_theta},
                 {"max_position_embeddings", s.context},
                 {"tie_word_embeddings", s.tied},
                 {"hidden_act", "silu"},
                 {"attention_bias", false},
                 {"mlp_bias", false},
                 {"torch_dtype", "float32"}};
  add_special_ids(file, config);
  return config;
}

void write_weights(const GgufFile& file, const std::vector<Item>& items, const Path& path,
                   const ImportProgress& progress) {
  std::vector<TensorInfo> infos;
  size_t done = 0, all = 0;
  for (const Item& item : items) {
    infos.push_back({item.hf_name, DType::f32, item.shape});
    all += static_cast<size_t>(file.tensors().find(item.gguf_name)->second.size()) * sizeof(float);
  }
  SafetensorsWriter writer(path, std::move(infos), {{"format", "pt"}});
  for (const Item& item : items) {  // both sorted by name
    const std::vector<float> values = decode(file.tensors().find(item.gguf_name)->second, item);
    writer.write(std::as_bytes(std::span(values)));
    done += values.size() * sizeof(float);
    if (progress) progress(done, all);
  }
  writer.commit();
}

// A folder that is not an import must not be replaced by one: it may be a model that somebody has made.
void check_target(const Path& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  const bool absent = fs::symlink_status(folder, error).type() == fs::file_type::not_found;
  if (absent || (fs::is_directory(folder, error) && fs::is_empty(folder, error))) return;
  QLORA_CHECK(fs::is_regular_file(folder / kMarker, error), usage,
              "{} exists and is not an imported model (it has no {}); choose another place or remove it",
              folder.string(), kMarker);
}

std::string marker_of(const Path& gguf) {
  const Json marker = {{"source", gguf.filename().string()}, {"sha256", hex(sha256_file(gguf))}};
  return marker.dump(2) + "\n";
}

}  // namespace

void import_gguf(const Path& gguf, const Path& out_dir, const ImportProgress& progress) {
  Path target = out_dir.lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // a slash at the end
  check_target(target);
  const GgufFile file(gguf);
  const LlamaShape shape = shape_of(file);
  const std::vector<Item> items = items_of(shape);
  check_tensors(file, items);
  const TokenizerFiles tokenizer = tokenizer_from_gguf(file);
  const auto tokens = static_cast<int64_t>(file.texts("tokenizer.ggml.tokens")->size());
  QLORA_CHECK(tokens == shape.vocab, data, "{}: {} tokens, but {} rows of embeddings", gguf.string(), tokens,
              shape.vocab);
  Json generation = Json::object();
  add_special_ids(file, generation);

  AtomicFolder folder(target);
  write_file(folder.path() / "config.json", config_of(file, shape).dump(2) + "\n");
  write_file(folder.path() / "generation_config.json", generation.dump(2) + "\n");
  write_file(folder.path() / "tokenizer.json", tokenizer.tokenizer);
  write_file(folder.path() / "tokenizer_config.json", tokenizer.config);
  write_weights(file, items, folder.path() / "model.safetensors", progress);
  write_file(folder.path() / kMarker, marker_of(gguf));
  folder.commit();
}

}  // namespace qlora
