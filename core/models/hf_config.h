#pragma once
// A typed config.json of a decoder, in old and new spelling (rope_theta / rope_scaling and rope_parameters,
// torch_dtype and dtype). Missing keys have the family's defaults; impossible values and what cannot be
// honoured are an Error(data) that names file and key.

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "kernels/args_pointwise.h"

namespace qlora {

struct RopeConfig {
  double theta = 10000;
  std::string type = "default";  // default | linear | llama3
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_position = 0;
  double partial = 1;  // the share of a head that is turned
  bool operator==(const RopeConfig&) const = default;
};

struct HfConfig {
  std::string model_type;
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, layers = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t max_positions = 0;
  double norm_eps = 1e-6;
  RopeConfig rope;
  int64_t rotary_dim = 0;  // elements of a head that rotary embedding turns; 0 = the family has none
  Activation activation = Activation::silu;
  bool parallel_residual = false;  // attention and feed-forward part read the same, and both are added to it
  // OPT-350m: norms come after the sums, there is none at the end, and rows of the embedding are narrower.
  bool norm_first = true;
  bool final_norm = true;
  int64_t embedding_size = 0;  // of a row of the embedding and of the head
  bool tied_head = false;
  double logit_softcap = 0;  // of the output head; 0 = none
  double score_softcap = 0;  // of attention
  double query_scalar = 0;   // scores are divided by its root; 0 = head_dim
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool head_norms = false;       // every head of q and k has its norm
  bool fused_linears = false;    // q, k and v are one linear, gate and up another
  std::vector<int64_t> windows;  // attention window of every layer; 0 = none
  std::string dtype;             // of the stored weights; empty when the file does not say
  std::vector<int32_t> eos_ids;  // of config.json, and of generation_config.json where that lies beside it
  int32_t bos_id = -1, pad_id = -1;
};

HfConfig read_hf_config(const Path& config_json);

// The value of model_type alone, for a file whose family may be unknown.
std::string read_model_type(const Path& config_json);

// f32 inverse frequencies [dim / 2] as Hugging Face computes them: 1 / theta^(2j / dim), dim being
// rotary_dim. "linear" divides them by factor; "llama3" divides wavelengths above original / low_freq_factor,
// keeps those below original / high_freq_factor, and interpolates between (Llama 3.1).
std::vector<float> rope_inv_freq(const RopeConfig&, int64_t dim);

}  // namespace qlora
