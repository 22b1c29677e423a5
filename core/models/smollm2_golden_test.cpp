// SmolLM2-135M-Instruct, imported from its GGUF file by `qlora model import`, against transformers.

#include <catch2/catch.hpp>

#include <cmath>

#include "core/io/test_models.h"
#include "core/models/generate.h"
#include "core/models/golden_models.h"
#include "core/models/tiny_model.h"
#include "core/ops/ops.h"

using namespace qlora;
using namespace qlora::test;

namespace {

double log_sum_exp(const std::vector<float>& v, size_t lo, size_t hi) {
  double most = *std::max_element(v.begin() + static_cast<int64_t>(lo), v.begin() + static_cast<int64_t>(hi)),
         sum = 0;
  for (size_t i = lo; i < hi; ++i) sum += std::exp(static_cast<double>(v[i]) - most);
  return most + std::log(sum);
}

}  // namespace

TEST_CASE("SmolLM2 has the logits of transformers and continues as it does", "[golden][slow]") {
  Path golden = goldens() / "smollm2";
  if (missing(golden) || missing(smollm2())) return;
  SafetensorsFile logits(golden / "logits.safetensors");
  Json expected = read_golden_json(golden / "expected.json");
  auto backend = make_backend("auto");
  Memory memory(*backend);
  auto model = load_model(smollm2(), memory, {});
  auto vocab = static_cast<size_t>(model->config().vocab_size);

  for (int p = 0; expected.contains("prompt_" + std::to_string(p)); ++p) {
    std::string number = std::to_string(p);
    const Json& one = expected.at("prompt_" + number);
    auto ids = one.at("ids").get<std::vector<int32_t>>();
    INFO("prompt " << p << " on " << backend->name());
    Batch batch = make_tiny_batch({{nullptr, 0, 0, 0, {ids}}});
    Context c{.backend = *backend, .memory = memory, .axis = &batch.axis};
    std::vector<int32_t> rows(ids.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
    std::vector<float> all = logits_of(c, model->output(), model->hidden(c).value, rows).to_floats();

    std::vector<float> last(all.end() - static_cast<int64_t>(vocab), all.end());
    CHECK(largest_difference(last, to_floats(logits.at("last_" + number))) <= 1e-3);
    std::vector<double> lse, next;
    for (size_t i = 0; i < ids.size(); ++i) {
      lse.push_back(log_sum_exp(all, i * vocab, (i + 1) * vocab));
      if (i + 1 < ids.size()) next.push_back(all[i * vocab + static_cast<size_t>(ids[i + 1])]);
    }
    CHECK(largest_difference(lse, to_floats(logits.at("lse_" + number))) <= 1e-3);
    CHECK(largest_difference(next, to_floats(logits.at("tok_logit_" + number))) <= 1e-3);

    auto greedy = one.at("greedy").get<std::vector<int32_t>>();
    Prompt prompt{ids};
    GenerateOptions options{.max_new_tokens = static_cast<int64_t>(greedy.size())};
    CHECK(generate(*model, memory, DType::f32, std::span(&prompt, 1), options)[0] == greedy);
  }
}
