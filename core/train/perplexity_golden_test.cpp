// Perplexity of SmolLM2-135M-Instruct on WikiText-2, dense and quantized, against transformers.

#include <catch2/catch.hpp>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/io/test_models.h"
#include "core/text/tokenizer.h"
#include "core/train/pack.h"
#include "kernels/test_backends.h"

using namespace qlora;

namespace {

// The first `n` characters (not bytes) of UTF-8 text.
std::string first_characters(const std::string& text, size_t n) {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    bool starts = (static_cast<unsigned char>(text[at]) & 0xC0u) != 0x80u;
    if (starts && n-- == 0) break;
  }
  return text.substr(0, at);
}

// The windows of expected.json: each alone, its first token not predicted.
std::vector<TokenExample> windows(const Json& perplexity) {
  std::string text = read_file(test::test_data() / perplexity.at("source").get<std::string>());
  text = first_characters(text, perplexity.at("chars").get<size_t>());
  std::vector<int32_t> ids = load_tokenizer(test::smollm2())->encode(text, false);
  auto count = perplexity.at("windows").get<size_t>(), length = perplexity.at("length").get<size_t>();
  REQUIRE(ids.size() >= count * length);
  ids.resize(count * length);
  CHECK(hex(sha256(std::as_bytes(std::span(ids)))) == perplexity.at("ids_sha256").get<std::string>());
  std::vector<TokenExample> all;
  for (size_t w = 0; w < count; ++w) {
    TokenExample e;
    e.ids.assign(ids.begin() + static_cast<int64_t>(w * length),
                 ids.begin() + static_cast<int64_t>((w + 1) * length));
    e.labels = e.ids;
    e.labels[0] = -100;
    all.push_back(std::move(e));
  }
  return all;
}

}  // namespace

TEST_CASE(
    "SmolLM2 has the perplexity of transformers in f32 and NF4 and with double quantization and bf16 "
    "operands",
    "[golden][slow]") {
  Path golden = test::goldens() / "smollm2/expected.json";
  if (test::missing(golden) || test::missing(test::smollm2())) return;
  Json perplexity = parse_json(read_file(golden), golden.string()).at("perplexity");
  if (test::missing(test::test_data() / perplexity.at("source").get<std::string>())) return;
  std::vector<TokenExample> examples = windows(perplexity);
  const std::pair<const char*, QuantConfig> forms[] = {
      {"f32", {}},
      {"nf4", {.format = Format::nf4}},
      {"nf4_dq", {.format = Format::nf4, .double_quant = true}},
  };
  auto backend = make_backend("auto");
  for (const auto& [name, quant] : forms) {
    INFO(name << " on " << backend->name());
    Memory memory(*backend);
    auto model = load_model(test::smollm2(), memory, {.quant = quant});
    EvalLoss loss = evaluate_loss(*model, memory, DType::f32, nullptr, examples, 2);
    const Json& expected = perplexity.at("nll").at(name);
    CHECK(loss.labels == expected.at("tokens").get<int64_t>());
    CHECK(std::exp(loss.mean()) == Approx(expected.at("ppl").get<double>()).epsilon(5e-4));
  }
  const Operands fastest = test::bf16_operands().back();
  Memory memory(*backend);
  auto model = load_model(test::smollm2(), memory, {.quant = forms[2].second, .operands = fastest});
  EvalLoss loss = evaluate_loss(*model, memory, DType::f32, nullptr, examples, 2);
  const double expected = perplexity.at("nll").at("nf4_dq").at("ppl");
  CAPTURE(name_of(fastest), std::exp(loss.mean()), expected);
  CHECK(std::exp(loss.mean()) == Approx(expected).epsilon(3e-3));
}
