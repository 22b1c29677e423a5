#pragma once
// The interface of model families. A model is const once built and shared by all runs; it knows nothing of
// adapters.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/models/hf_config.h"
#include "core/ops/context.h"
#include "core/ops/head.h"
#include "core/quant/frozen.h"

namespace qlora {

// How a file keeps the weight of a linear: rows are outputs, or, as Conv1D of GPT-2 has it, inputs.
enum class WeightOrder : uint8_t { out_in, in_out };

// What adapters may target.
struct LinearInfo {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t out = 0, in = 0;
  WeightOrder order = WeightOrder::out_in;
};

class Model {
 public:
  virtual ~Model() = default;
  // Final hidden states, after the last norm: [rows of c.axis, head().in()], or of the rows that c wants.
  // What the blocks keep for backward is up to c.checkpointing. With `trace`, appends the input of the first
  // block and the output of every block (tests).
  virtual Var hidden(Context& c, std::vector<Tensor>* trace = nullptr) const = 0;
  // The linear of the output head, [vocab, its own width].
  virtual const FrozenLinear& head() const = 0;
  // What makes logits of hidden states.
  OutputHead output() const { return {head(), config().logit_softcap}; }
  virtual std::span<const LinearInfo> linears() const = 0;
  // A linear by its name, or null.
  virtual const FrozenLinear* find(std::string_view linear) const = 0;
  virtual const HfConfig& config() const = 0;
  // Of all its products (LoadOptions::operands).
  virtual Operands operands() const = 0;
  virtual size_t bytes() const = 0;  // of all weights on the device
};

class BaseCache;

struct LoadOptions {
  QuantConfig quant = {};   // of the linears of the blocks; embedding, head and norms stay dense
  DType type = DType::f32;  // compute type
  // Of all products with the model's weights, those of adapters on them too. bf16: what is dense and wide
  // (embedding, head, unquantized linears) is stored as bf16.
  Operands operands = Operands::as_stored;
  bool shapes_only = false;  // planning on the counting backend: no weight is read
  // Keep the quantized base in a file beside the model, and map it when it is there (base_cache.h).
  bool cache = false;
  BaseCache* base = nullptr;  // set by load_model() for the loaders
};

// Reads a Hugging Face folder; the family comes from config.json's model_type. Weights go slice by slice
// through quantize_slices(), so host memory stays a few megabytes and one tensor's codes above the quantized
// model (loading_bytes); or the quantized base is mapped from its file. A weight that is missing, of a wrong
// shape or not consumed is an Error(data) that lists names.
std::shared_ptr<const Model> load_model(const Path& folder, Memory&, const LoadOptions&);

// The same of config.json alone, as if the weights that it announces were there: sizes without content, for
// the counting backend.
std::shared_ptr<const Model> shapes_of_model(const Path& config_json, Memory&, const LoadOptions&);

// The registered model_type values, for messages and tests.
std::vector<std::string> model_types();

}  // namespace qlora
