#pragma once
// The weights of a family, said once: visit() of its weights names every one, in the order of loading. One
// visitor lists them, another loads them.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/models/weights.h"
#include "core/ops/ops.h"

namespace qlora {

using LinearPtr = std::shared_ptr<FrozenWeight>;

// A linear that adapters may target, by its name in the model.
struct LinearSpec {
  std::string name;
  int64_t out = 0, in = 0;
  bool bias = false;
  WeightOrder order = WeightOrder::out_in;
};

class WeightVisitor {
 public:
  virtual ~WeightVisitor() = default;
  // An embedding, a head or another matrix that stays dense, and a norm or a bias.
  virtual void table(const WeightSpec&, Tensor&) = 0;
  virtual void dense(const WeightSpec&, Tensor&) = 0;
  virtual void linear(const LinearSpec&, LinearPtr&) = 0;
  // The embedding is the head too: files may hold a copy of it by this name, and no other matrix.
  virtual void tie(const WeightSpec& head, const WeightSpec& embedding) = 0;
  // A head that is tied to the embedding, or a table of its own.
  void head(const WeightSpec& w, Tensor& to, bool tied, const WeightSpec& embedding) {
    if (tied) {
      tie(w, embedding);
    } else {
      table(w, to);
    }
  }
  // NAME.weight and NAME.bias.
  void norm(const std::string& name, int64_t size, LayerNormWeights& to) {
    dense({name + ".weight", {size}}, to.weight);
    dense({name + ".bias", {size}}, to.bias);
  }
};

using VisitWeights = std::function<void(WeightVisitor&)>;

// All of them.
std::vector<WeightSpec> list_weights(const VisitWeights&);

// What has been loaded, but for where the visit has put it.
struct LoadedWeights {
  std::vector<LinearInfo> linears;
  std::map<std::string, const FrozenLinear*, std::less<>> by_name;
  size_t bytes = 0;
};

// Checks that the folder has them and no others, but for names that end in one of `ignored` and a copy of the
// embedding where the head is tied to it, and loads them.
// The files may have left out `prefix`, with which all names begin: checkpoints of a bare model have.
LoadedWeights load_weights(const ModelFolder&, Memory&, const LoadOptions&, const std::string& prefix,
                           std::span<const std::string> ignored, const VisitWeights&);

}  // namespace qlora
