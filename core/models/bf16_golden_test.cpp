// A golden model as GPUs train it and score with it: operands of bf16, more rows than a tile has, and heads
// that the kernels of attention on tensor cores take; against what transformers computed with it in f32.

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "core/models/golden_models.h"
#include "core/models/tiny_model.h"
#include "core/ops/ops.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

constexpr int64_t kNarrow = 16, kWide = 64;  // sizes of a head: the golden's, and ours

// Where element i of a head goes, so that rotary positions still turn i and i + kNarrow / 2 together.
int64_t place_of(int64_t i) {
  return i % (kNarrow / 2) + i / (kNarrow / 2) * (kWide / 2);
}

// The same function with wider heads: [heads * kNarrow, n] with zeros between, or with `columns` its
// transpose.
std::vector<float> widened(const std::vector<float>& w, int64_t n, bool columns, float factor) {
  const int64_t narrow = std::ssize(w) / n, wide = narrow / kNarrow * kWide;
  std::vector<float> out(static_cast<size_t>(wide * n));
  for (int64_t i = 0; i < narrow; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const int64_t to = i / kNarrow * kWide + place_of(i % kNarrow);
      out[static_cast<size_t>(columns ? j * wide + to : to * n + j)] =
          factor * w[static_cast<size_t>(columns ? j * narrow + i : i * n + j)];
    }
  return out;
}

// A golden of llama's family with wide heads. Scores are divided by the root of a head's size, so queries are
// doubled; the frequency of pair i is theta^(-2 i / size), so theta takes the power of the ratio.
void write_with_wide_heads(const Path& golden, const Path& folder) {
  Json config = read_golden_json(golden / "config.json");
  REQUIRE(config.at("head_dim") == kNarrow);
  config["head_dim"] = kWide;
  Json& theta = config.at("rope_parameters").at("rope_theta");
  theta = std::pow(theta.get<double>(), kWide / kNarrow);
  write_file(folder / "config.json", config.dump());
  const int64_t hidden = config.at("hidden_size");
  SafetensorsFile file(golden / "model.safetensors");
  std::vector<std::vector<float>> values;
  std::vector<TensorOut> out;
  values.reserve(file.tensors().size());
  for (const auto& [name, view] : file.tensors()) {
    std::vector<int64_t> shape = view.shape;
    std::vector<float> w = to_floats(view);
    if (name.find("self_attn") != name.npos) {
      const bool columns = name.find("o_proj") != name.npos;
      w = widened(w, hidden, columns, name.find("q_proj") != name.npos ? 2.0f : 1.0f);
      shape[columns ? 1 : 0] *= kWide / kNarrow;
    }
    values.push_back(std::move(w));
    out.push_back({name, DType::f32, shape, std::as_bytes(std::span(values.back()))});
  }
  write_safetensors(folder / "model.safetensors", out, {{"format", "pt"}});
}

}  // namespace

TEST_CASE("a golden model with bf16 operands keeps near the logits of transformers, on tensor cores too",
          "[golden]") {
  const Path golden = golden_models_path() / "llama_gqa";
  if (missing(golden)) return;
  TemporaryFolder folder;
  write_with_wide_heads(golden, folder.path());
  SafetensorsFile forward(golden / "forward.safetensors");
  const Json expected = read_golden_json(golden / "expected.json"),
             inputs = read_golden_json(golden / "inputs.json");
  std::vector<std::vector<int32_t>> ids;
  std::vector<float> logits;
  for (int twice = 0; twice < 2; ++twice)  // 112 rows: cuBLAS's
    for (const Json& s : inputs.at("sequences")) {
      const std::vector<float> one = to_floats(forward.at("logits_" + std::to_string(ids.size() % 4)));
      logits.insert(logits.end(), one.begin(), one.end());
      ids.push_back(s.at("input_ids").get<std::vector<int32_t>>());
    }
  const double spread = expected.at("logit_std");
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    INFO(variant);
    auto backend = make_backend(variant.backend);
    Memory memory(*backend);
    auto model = load_model(folder.path(), memory, {.operands = variant.operands});
    Batch batch = make_tiny_batch({{nullptr, 0, 0, 0, ids}});
    Context c{.backend = *backend, .memory = memory, .axis = &batch.axis};
    std::vector<int32_t> rows(static_cast<size_t>(batch.axis.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    const std::vector<float> found = logits_of(c, model->output(), model->hidden(c).value, rows).to_floats();
    REQUIRE(!found.empty());
    REQUIRE(found.size() == logits.size());
    if (variant.operands == Operands::as_stored) {
      CHECK(largest_difference(found, logits) <= f32_bound(expected));
      continue;
    }
    // A rounding is off by 2^-9 / sqrt(3) on average. A path to a logit has some thirteen products (six a
    // layer, and the head), each of two rounded operands: 0.0057 of what the logits spread, were all of them
    // independent and no score sharp. The reference is off by 0.0123.
    double squares = 0;
    for (size_t i = 0; i < found.size(); ++i) squares += std::pow(found[i] - logits[i], 2);
    const double off = std::sqrt(squares / static_cast<double>(found.size())) / spread;
    INFO("off by " << off << " of the logits' spread");
    CHECK(off <= 0.015);
    CHECK(off > 1e-5);  // it is not f32 that ran
  }
}
