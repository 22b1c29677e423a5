#pragma once
// For tests: a tiny model that answers, and what it is asked.

#include <memory>
#include <vector>

#include "core/models/tiny_model.h"
#include "eval/lm.h"
#include "eval/model_lm/test_requests.h"
#include "kernels/test_backends.h"

namespace qlora::test {

// One tiny model with two adapters.
struct Fixture {
  explicit Fixture(const Variant& variant, const TinyConfig& config = {.max_positions = 1024},
                   const QuantConfig& quant = {})
      : backend(make_backend(variant.backend)), memory(*backend) {
    model = load_tiny_model(memory, config, {.quant = quant, .operands = variant.operands});
    first = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .dropout = 0.1f, .seed = 5});
    second = make_tiny_adapter(*model, memory, DType::f32, {.rank = 8, .seed = 6, .only = "q_proj"});
  }
  std::unique_ptr<Lm> lm(bool reuse, int64_t batch = 4096, int64_t prefixes = 2048) {
    return make_model_lm(model, memory, {&first, &second},
                         {.max_batch_tokens = batch, .reuse_prefixes = reuse, .max_prefix_tokens = prefixes});
  }
  std::unique_ptr<Backend> backend;
  Memory memory;
  std::shared_ptr<const Model> model;
  Adapter first, second;
};

// Next tokens, and continuations of one to five tokens, over a random tree.
struct Requests {
  std::vector<NextTokenRequest> next;
  std::vector<LogLikelihoodRequest> continuations;
  explicit Requests(uint64_t seed, size_t count) {
    for (const TestSequence& s : random_prefix_tree(seed, count, 3, 61)) {
      next.push_back({s.ids, {4, 60, 0}, s.subject});
      const size_t tail = 1 + s.ids.size() % 5;
      if (s.ids.size() <= tail) continue;
      const auto cut = s.ids.end() - static_cast<std::ptrdiff_t>(tail);
      continuations.push_back({{s.ids.begin(), cut}, {cut, s.ids.end()}, s.subject});
      // Another continuation of the same context.
      continuations.push_back({{s.ids.begin(), cut}, {7, 7}, s.subject});
    }
  }
};

}  // namespace qlora::test
