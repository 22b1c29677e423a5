#include "core/models/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "core/models/base_cache.h"

namespace qlora {

namespace {

constexpr size_t kNamesShown = 12;

bool is_ignored(const std::string& name, std::span<const std::string> ignored) {
  return std::any_of(ignored.begin(), ignored.end(), [&](const std::string& s) { return name.ends_with(s); });
}

// "missing (3): a, b, c", or nothing.
std::string section(const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return "";
  std::vector<std::string> shown(names.begin(), names.begin() + std::min(names.size(), kNamesShown));
  if (names.size() > kNamesShown) shown.emplace_back("...");
  return fmt::format("\n  {} ({}): {}", what, names.size(), fmt::join(shown, ", "));
}

// Whether two tensors have the same elements, whatever types they are stored in.
bool are_equal(const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape || !is_floating(a.type) || !is_floating(b.type)) return false;
  std::vector<float> left(static_cast<size_t>(std::min(kQuantizeSlice, a.size()))), right(left.size());
  for (int64_t begin = 0; begin < a.size(); begin += kQuantizeSlice) {
    const int64_t end = std::min(begin + kQuantizeSlice, a.size());
    const auto n = static_cast<size_t>(end - begin);
    for (auto [view, to] : {std::pair(&a, &left), std::pair(&b, &right)}) {
      const TensorView part = view->elements(begin, end);
      to_floats(part, std::span(*to).first(n));
      drop_pages(part.bytes);
    }
    // Bits, so that a NaN equals its copy: what reads the embedding names it.
    if (std::memcmp(left.data(), right.data(), n * sizeof(float)) != 0) return false;
  }
  return true;
}

}  // namespace

void check_weights(const ModelFolder& folder, std::span<const WeightSpec> expected,
                   std::span<const std::string> ignored) {
  std::vector<std::string> missing, wrong, whole, unused;
  std::set<std::string> known;
  for (const WeightSpec& w : expected) {
    known.insert(w.name);
    const TensorView* found = folder.find(w.name);
    if (found == nullptr) {
      missing.push_back(w.name);
    } else if (found->shape != w.shape) {
      wrong.push_back(
          fmt::format("{} is {}, expected {}", w.name, to_string(found->shape), to_string(w.shape)));
    } else if (!is_floating(found->type)) {
      whole.push_back(fmt::format("{} is {}", w.name, name_of(found->type)));
    }
  }
  for (const std::string& name : folder.names()) {
    if (!known.contains(name) && !is_ignored(name, ignored)) unused.push_back(name);
  }
  QLORA_CHECK(missing.empty() && wrong.empty() && whole.empty() && unused.empty(), data,
              "{}: the weights do not fit config.json{}{}{}{}", folder.path().string(),
              section("missing", missing), section("wrong shape", wrong),
              section("not f32, f64, bf16 or f16", whole), section("not used", unused));
}

size_t loading_bytes(const ModelFolder& folder, const QuantConfig& quant) {
  size_t most = 0;
  for (const std::string& name : folder.names()) {
    const TensorView& view = *folder.find(name);
    const size_t mapped = std::min(view.stored_bytes(), kQuantizeSlice * sizeof(double));
    most = std::max(most, mapped + quantize_scratch(view.size(), quant));
    // A base that is kept is hashed.
    most = std::max(most, static_cast<size_t>(thread_count()) * std::min(view.stored_bytes(), kReadBytes));
  }
  return most;
}

std::string WeightLoader::stored_name(const std::string& name) const {
  return name.starts_with(absent_prefix_) ? name.substr(absent_prefix_.size()) : name;
}

const TensorView& WeightLoader::view(const std::string& name) const {
  const TensorView* found = folder_.find(stored_name(name));
  QLORA_CHECK(found != nullptr, data, "{}: no tensor {}", folder_.path().string(), stored_name(name));
  return *found;
}

void WeightLoader::check_tied(const std::string& head, const std::string& embedding) const {
  const TensorView* found = folder_.find(stored_name(head));
  if (found == nullptr || options_.shapes_only) return;
  QLORA_CHECK(are_equal(*found, view(embedding)), data,
              "{}: config.json ties the head to the embedding, but {} is not the matrix {}; set "
              "tie_word_embeddings: false in config.json, or take {} out of the files",
              folder_.path().string(), stored_name(head), stored_name(embedding), stored_name(head));
}

WeightSource WeightLoader::source(const std::string& name) const {
  if (options_.shapes_only) return nullptr;
  return [&stored = view(name)](int64_t begin, std::span<float> out) {
    const TensorView part = stored.elements(begin, begin + static_cast<int64_t>(out.size()));
    to_floats(part, out);
    drop_pages(part.bytes);
  };
}

WeightSource WeightLoader::transposed(const std::string& name, int64_t out, int64_t in) const {
  if (options_.shapes_only) return nullptr;
  return [&stored = view(name), out, in](int64_t begin, std::span<float> to) {
    const int64_t end = begin + static_cast<int64_t>(to.size());
    const int64_t first = begin / in, last = (end + in - 1) / in;  // outputs that the slice has a part of
    std::vector<float> row(static_cast<size_t>(last - first));
    const int64_t rows_at_once = std::max<int64_t>(1, kQuantizeSlice / out);
    for (int64_t i = 0; i < in; ++i) {
      to_floats(stored.elements(i * out + first, i * out + last), row);
      for (int64_t o = first; o < last; ++o) {
        const int64_t at = o * in + i;
        if (at >= begin && at < end)
          to[static_cast<size_t>(at - begin)] = row[static_cast<size_t>(o - first)];
      }
      if ((i + 1) % rows_at_once == 0 || i + 1 == in)
        drop_pages(stored.elements(i / rows_at_once * rows_at_once * out, (i + 1) * out).bytes);
    }
  };
}

Tensor WeightLoader::read_as(const WeightSpec& w, DType type) const {
  if (options_.base != nullptr)
    if (Tensor kept = options_.base->find(memory_, w.name, w.shape, type)) return kept;
  Tensor made(memory_, w.shape, type, Tag::weights);
  if (options_.shapes_only) return made;
  const WeightSource read = source(w.name);
  std::vector<float> buffer(static_cast<size_t>(std::min(kQuantizeSlice, made.size())));
  for (int64_t begin = 0; begin < made.size(); begin += kQuantizeSlice) {
    const std::span<float> slice =
        std::span(buffer).first(static_cast<size_t>(std::min(kQuantizeSlice, made.size() - begin)));
    read(begin, slice);
    QLORA_CHECK(std::all_of(slice.begin(), slice.end(), [](float v) { return std::isfinite(v); }), data,
                "{}: {} holds NaN or infinity", folder_.path().string(), w.name);
    if (w.plus != 0)
      for (float& v : slice) v += w.plus;
    made.write_floats(begin, slice);
  }
  if (options_.base != nullptr) options_.base->keep(w.name, made);
  return made;
}

Tensor WeightLoader::dense(const WeightSpec& w) const {
  return read_as(w, options_.type);
}

Tensor WeightLoader::table(const WeightSpec& w) const {
  return read_as(w, dense_type(options_.type, options_.operands));
}

std::shared_ptr<FrozenWeight> WeightLoader::quantized(const std::string& name, int64_t out, int64_t in,
                                                      WeightOrder order) const {
  if (options_.base != nullptr)
    if (std::optional<FrozenWeight::Parts> kept = options_.base->find_linear(memory_, name, out, in)) {
      auto w = std::make_shared<FrozenWeight>(name, out, in);
      kept->operands = options_.operands;
      w->set_parts(std::move(*kept));
      return w;
    }
  const WeightSource read =
      order == WeightOrder::in_out ? transposed(name + ".weight", out, in) : source(name + ".weight");
  std::shared_ptr<FrozenWeight> w =
      quantize_slices(memory_, name, out, in, read, options_.quant, options_.type, options_.operands);
  if (options_.base != nullptr) options_.base->keep_linear(name, w->parts());
  return w;
}

std::shared_ptr<FrozenWeight> WeightLoader::linear(const std::string& name, int64_t out, int64_t in,
                                                   bool bias, WeightOrder order) const {
  std::shared_ptr<FrozenWeight> w = quantized(name, out, in, order);
  if (bias) w->set_bias(dense({name + ".bias", {out}}));
  return w;
}

std::shared_ptr<FrozenWeight> dense_linear(std::string name, const Tensor& table, Operands operands) {
  auto w = std::make_shared<FrozenWeight>(std::move(name), table.rows(), table.cols());
  FrozenWeight::Parts parts;
  parts.data = table;
  parts.operands = operands;
  w->set_parts(std::move(parts));
  return w;
}

}  // namespace qlora
