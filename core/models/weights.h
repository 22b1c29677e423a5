#pragma once
// From the files of a model folder to weights on a device. A family lists what it expects; everything that
// does not fit is reported at once, before any weight is read.

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/io/safetensors.h"
#include "core/models/model.h"

namespace qlora {

// A tensor that a family reads, by its Hugging Face name.
struct WeightSpec {
  std::string name;
  Shape shape;
  float plus = 0;  // added to what the file holds: norms of Gemma multiply by 1 + w
};

// Throws Error(data) that lists all tensors that are missing, of a wrong shape, or not expected (an expected
// one can only hide behind a name that is not). Tensors whose names end in one of `ignored` are left aside.
void check_weights(const ModelFolder&, std::span<const WeightSpec> expected,
                   std::span<const std::string> ignored);

// The weights that config.json announces: their names and shapes, and the type that it says they are stored
// in.
ModelFolder announced_weights(const Path& config_json);

// The model that config.json describes, of weights that the folder has.
std::shared_ptr<const Model> load_weights(const ModelFolder&, const Path& config_json, Memory&,
                                          const LoadOptions&);

// Bytes that loading takes at most beside the weights that are loaded already: a slice of a tensor, and the
// codes of the largest before they are uploaded.
size_t loading_bytes(const ModelFolder&, const QuantConfig&);

// Reads tensors that check_weights() has found in order, or takes them from the mapped base (base_cache.h)
// where that has them. With LoadOptions::shapes_only, tensors get their size and no content.
class WeightLoader {
 public:
  // Names in the files have left out `absent_prefix`.
  WeightLoader(const ModelFolder& folder, Memory& memory, const LoadOptions& options,
               std::string absent_prefix = {})
      : folder_(folder), memory_(memory), options_(options), absent_prefix_(std::move(absent_prefix)) {}

  const LoadOptions& options() const { return options_; }
  // How the files call a tensor.
  std::string stored_name(const std::string& tensor) const;
  // Where the files hold `head`, it must be the copy of `embedding` that a tied head is; else throws
  // Error(data).
  void check_tied(const std::string& head, const std::string& embedding) const;
  // Elements of the compute type: norms and biases. NaN or infinity throws Error(data).
  Tensor dense(const WeightSpec&) const;
  // The embedding, or a head: elements as dense_type() says.
  Tensor table(const WeightSpec&) const;
  // name + ".weight", [out, in] or stored as `order` says, by the options' QuantConfig, and name + ".bias"
  // [out] where there is one.
  std::shared_ptr<FrozenWeight> linear(const std::string& name, int64_t out, int64_t in, bool bias,
                                       WeightOrder order = WeightOrder::out_in) const;

 private:
  const TensorView& view(const std::string& tensor) const;
  WeightSource source(const std::string& tensor) const;  // null with shapes_only
  // Of the transpose of a matrix [in, out].
  WeightSource transposed(const std::string& tensor, int64_t out, int64_t in) const;
  Tensor read_as(const WeightSpec&, DType) const;
  std::shared_ptr<FrozenWeight> quantized(const std::string& name, int64_t out, int64_t in,
                                          WeightOrder) const;

  const ModelFolder& folder_;
  Memory& memory_;
  const LoadOptions& options_;
  std::string absent_prefix_;
};

// A dense linear over a table that exists already: heads, tied to the embedding or not.
std::shared_ptr<FrozenWeight> dense_linear(std::string name, const Tensor& table, Operands);

}  // namespace qlora
