// Prefix reuse on a real model: the same bits as without it.
//
// CI takes a few questions. QLORA_PREFIX_QUESTIONS=200 asks so many, which takes a quarter of an hour of one
// core.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <memory>

#include "core/io/test_models.h"
#include "eval/tasks/mmlu.h"
#include "kernels/test_backends.h"

using namespace qlora;

TEST_CASE("five-shot MMLU of SmolLM2 has the same bits with and without prefix reuse", "[golden][slow]") {
  const Path folder = test::smollm2(), tree = test::test_data() / "03_mmlu/original_csv";
  if (test::missing(folder) || test::missing(tree)) return;
  const char* text = std::getenv("QLORA_PREFIX_QUESTIONS");
  const int64_t questions = text == nullptr ? 8 : std::atoll(text);
  MmluOptions options;
  options.shots = 5;
  options.split = "test";
  options.subjects = {"abstract_algebra", "anatomy", "marketing", "us_foreign_policy"};
  options.limit = (questions + 3) / 4;
  const MmluData data = read_mmlu(tree, options);
  auto tokenizer = load_tokenizer(folder);
  auto backend = make_backend("auto");
  for (Operands operands : {Operands::as_stored, test::bf16_operands().back()}) {
    INFO(name_of(operands));
    Memory memory(*backend);
    auto model = load_model(folder, memory, {.operands = operands});
    auto report = [&](bool reuse) {
      std::vector<SubjectIndex> base = {-1};
      auto lm = make_model_lm(model, memory, {}, {.reuse_prefixes = reuse});
      return run_mmlu(*lm, *tokenizer, data, options, base).front();
    };
    const MmluReport with = report(true), without = report(false);
    REQUIRE(static_cast<int64_t>(with.items.size()) >= questions);
    for (size_t i = 0; i < with.items.size(); ++i) {
      CHECK(with.items[i].logits == without.items[i].logits);
      CHECK(with.items[i].log_probs == without.items[i].log_probs);
      CHECK(with.items[i].prediction == without.items[i].prediction);
    }
  }
}
