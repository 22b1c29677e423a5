#include "core/models/weight_visitor.h"

#include <algorithm>

namespace qlora {

namespace {

class List final : public WeightVisitor {
 public:
  void table(const WeightSpec& w, Tensor&) override { specs.push_back(w); }
  void dense(const WeightSpec& w, Tensor&) override { specs.push_back(w); }
  void linear(const LinearSpec& l, LinearPtr&) override {
    const bool turned = l.order == WeightOrder::in_out;
    specs.push_back({l.name + ".weight", turned ? Shape{l.in, l.out} : Shape{l.out, l.in}});
    if (l.bias) specs.push_back({l.name + ".bias", {l.out}});
  }
  void tie(const WeightSpec& head, const WeightSpec& embedding) override {
    ties.emplace_back(head.name, embedding.name);
  }
  std::vector<WeightSpec> specs;
  std::vector<std::pair<std::string, std::string>> ties;  // heads, and the embeddings that they copy
};

class Load final : public WeightVisitor {
 public:
  explicit Load(const WeightLoader& loader) : loader_(loader) {}
  void table(const WeightSpec& w, Tensor& to) override { count(to = loader_.table(w)); }
  void dense(const WeightSpec& w, Tensor& to) override { count(to = loader_.dense(w)); }
  void linear(const LinearSpec& l, LinearPtr& to) override {
    to = loader_.linear(l.name, l.out, l.in, l.bias, l.order);
    loaded.bytes += to->bytes();
    loaded.by_name.emplace(l.name, to.get());
    loaded.linears.push_back({l.name, l.out, l.in, l.order});
  }
  void tie(const WeightSpec&, const WeightSpec&) override {}
  LoadedWeights loaded;

 private:
  void count(const Tensor& t) { loaded.bytes += t.bytes(); }
  const WeightLoader& loader_;
};

// `prefix`, unless a name in the files begins with it.
std::string absent_prefix(const ModelFolder& folder, const std::string& prefix) {
  const std::vector<std::string> names = folder.names();
  const bool there = std::any_of(names.begin(), names.end(),
                                 [&](const std::string& name) { return name.starts_with(prefix); });
  return there ? "" : prefix;
}

}  // namespace

std::vector<WeightSpec> list_weights(const VisitWeights& visit) {
  List list;
  visit(list);
  return std::move(list.specs);
}

LoadedWeights load_weights(const ModelFolder& folder, Memory& memory, const LoadOptions& options,
                           const std::string& prefix, std::span<const std::string> ignored,
                           const VisitWeights& visit) {
  const WeightLoader loader(folder, memory, options, absent_prefix(folder, prefix));
  List list;
  visit(list);
  for (WeightSpec& w : list.specs) w.name = loader.stored_name(w.name);
  std::vector<std::string> unread(ignored.begin(), ignored.end());
  for (const auto& [head, embedding] : list.ties) unread.push_back(loader.stored_name(head));
  check_weights(folder, list.specs, unread);
  for (const auto& [head, embedding] : list.ties) loader.check_tied(head, embedding);
  Load load(loader);
  visit(load);
  return std::move(load.loaded);
}

}  // namespace qlora
