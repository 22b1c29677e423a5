// Cases of the loss, the gradient norm, the optimizer, and of drawing tokens.

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cases/cases.h"
#include "kernels/quant/dynamic8.h"

namespace qlora::test {
namespace {

enum class Dlogits { none, own, over_logits };

Case entropy_case(int64_t rows, int64_t vocab, bool weighted, Dlogits kind, double softcap = 0) {
  int64_t n = rows * vocab;
  Case c{.kernel = "cross_entropy", .length = vocab};
  c.shape = std::to_string(rows) + "x" + std::to_string(vocab) + (weighted ? " weighted" : "") +
            (kind == Dlogits::none  ? " loss only"
             : kind == Dlogits::own ? ""
                                    : " in place");
  if (softcap > 0) c.shape += " softcap";
  c.inputs = {normals(1, n, 4)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    std::vector<int32_t> targets;
    std::vector<float> weights;
    for (int64_t r = 0; r < rows; ++r) {
      targets.push_back(r % 4 == 2 ? -100 : static_cast<int32_t>(r * 31 % vocab));
      weights.push_back(static_cast<float>(r + 1) * 0.25f);
    }
    void *logits = d.put(in[0]), *loss = d.make(rows);
    void* dlogits = kind == Dlogits::none ? nullptr : kind == Dlogits::own ? d.make(n) : logits;
    d.backend().cross_entropy({.logits = logits,
                               .targets = targets.data(),
                               .weights = weighted ? weights.data() : nullptr,
                               .loss = loss,
                               .dlogits = dlogits,
                               .rows = rows,
                               .vocab = vocab,
                               .type = d.type(),
                               .softcap = softcap});
    std::vector<Array> results = {d.get(loss, rows)};
    if (dlogits != nullptr) results.push_back(d.get(dlogits, n));
    return results;
  };
  // loss = lse - logit, and softmax - 1 at the target.
  double largest = 0;
  for (double v : c.inputs[0]) largest = std::max(largest, std::abs(v));
  c.cancels = {largest + std::log(static_cast<double>(vocab))};
  if (kind != Dlogits::none) c.cancels.push_back(weighted ? static_cast<double>(rows) * 0.25 : 1.0);
  return c;
}

// Elements reach far into both saturated ends, and close to zero.
Case softcap_case(int64_t n, double cap, bool in_place) {
  Case c{.kernel = "softcap", .shape = std::to_string(n) + (in_place ? " in place" : "")};
  c.inputs = {normals(1, n, 4)};
  for (size_t i = 0; i < c.inputs[0].size(); i += 3)
    c.inputs[0][i] = static_cast<double>(static_cast<float>(c.inputs[0][i] * 1e-4));
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void *x = d.put(in[0]), *y = in_place ? x : d.make(n);
    d.backend().softcap({.x = x, .y = y, .n = n, .cap = cap, .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

Case squares_case(std::vector<int64_t> sizes) {
  Case c{.kernel = "sum_squares", .shape = std::to_string(sizes.size()) + " tensors"};
  for (size_t t = 0; t < sizes.size(); ++t) c.inputs.push_back(normals(t, sizes[t]));
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    std::vector<TensorRef> tensors;
    for (const Array& values : in) tensors.push_back({d.put(values), static_cast<int64_t>(values.size())});
    double* out = d.put_raw(Array{-1});
    d.backend().sum_squares({.tensors = tensors, .out = out, .type = d.type()});
    return {d.get_raw(out, 1)};
  };
  return c;
}

// With `slab_bytes` m and v lie in host memory. Steps follow each other without waiting.
Case adam_case(std::string name, std::vector<int64_t> sizes, StepScalars scalars, double decay, int64_t step,
               size_t slab_bytes = 0, int64_t steps = 1) {
  Case c{.kernel = "adamw", .shape = std::move(name)};
  uint64_t seed = 1;
  for (int64_t n : sizes) {
    for (int i = 0; i < 3; ++i) c.inputs.push_back(normals(seed++, n));
    Array v = normals(seed++, n);
    for (double& value : v) value = std::abs(value);
    c.inputs.push_back(v);
  }
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    Next next(in);
    auto put_state = [&](const Array& values) { return slab_bytes > 0 ? d.put_host(values) : d.put(values); };
    std::vector<AdamTensor> tensors;
    for (int64_t n : sizes) {
      AdamTensor t{.p = d.put(next()), .g = d.put(next()), .n = n};
      t.m = put_state(next());
      t.v = put_state(next());
      t.weight_decay = decay;
      tensors.push_back(t);
    }
    const StepScalars* on_device = d.put_raw(std::vector<StepScalars>{scalars});
    for (int64_t i = 0; i < steps; ++i)
      d.backend().adamw({.tensors = tensors,
                         .scalars = on_device,
                         .step = step + i,
                         .type = d.type(),
                         .slab_bytes = slab_bytes});
    std::vector<Array> results;
    for (const AdamTensor& t : tensors) {
      results.push_back(d.get(t.p, t.n));
      for (const void* state : {t.m, t.v})
        results.push_back(slab_bytes > 0 ? d.get_host(state, t.n) : d.get(state, t.n));
    }
    return results;
  };
  return c;
}

// Of states in eight bits: a tensor's codes and scales are a function of its size.
Case adam8_case(std::string name, std::vector<int64_t> sizes, StepScalars scalars, double decay, int64_t step,
                bool with_states) {
  Case c{.kernel = "adamw8", .shape = std::move(name)};
  uint64_t seed = 1;
  for (int64_t n : sizes)
    for (int i = 0; i < 2; ++i) c.inputs.push_back(normals(seed++, n));
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    Next next(in);
    std::vector<Adam8Tensor> tensors;
    std::vector<Array> results;
    for (int64_t n : sizes) {
      const auto blocks = static_cast<size_t>((n + kAdam8Block - 1) / kAdam8Block);
      std::vector<uint8_t> m, v;
      for (int64_t i = 0; i < n; ++i) {
        m.push_back(static_cast<uint8_t>(with_states ? i * 37 % 256 : 0));
        v.push_back(static_cast<uint8_t>(with_states ? 128 + i * 11 % 128 : 0));
      }
      Adam8Tensor t{.p = d.put(next()), .g = d.put(next())};
      t.m = d.put_raw(m);
      t.v = d.put_raw(v);
      t.m_absmax = d.put_raw(std::vector<float>(blocks, with_states ? 0.5f : 0.0f));
      t.v_absmax = d.put_raw(std::vector<float>(blocks, with_states ? 2.0f : 0.0f));
      t.n = n;
      t.weight_decay = decay;
      tensors.push_back(t);
    }
    d.backend().adamw8({.tensors = tensors,
                        .scalars = d.put_raw(std::vector<StepScalars>{scalars}),
                        .m_map = signed_dynamic_map().data(),
                        .v_map = unsigned_dynamic_map().data(),
                        .step = step,
                        .type = d.type()});
    // Not the codes: a rounding may move them (core/train/schedule_test.cpp compares them).
    for (const Adam8Tensor& t : tensors) {
      const int64_t blocks = (t.n + kAdam8Block - 1) / kAdam8Block;
      results.push_back(d.get(t.p, t.n));
      for (const float* scales : {t.m_absmax, t.v_absmax}) {
        const std::vector<float> values = d.get_raw(scales, blocks);
        results.emplace_back(values.begin(), values.end());
      }
    }
    return results;
  };
  return c;
}

Case sample_case(std::string name, int64_t rows, int64_t vocab, TokenChoice how) {
  Case c{.kernel = "sample",
         .shape = std::to_string(rows) + "x" + std::to_string(vocab) + " " + std::move(name)};
  c.inputs = {normals(7, rows * vocab, 2)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    PhiloxStream random(3);
    std::vector<TokenChoice> choices;
    std::vector<int32_t> seen;
    for (int64_t r = 0; r < rows; ++r) {
      TokenChoice& choice = choices.emplace_back(how);
      choice.random = uint64_t{random.next()} << 32 | random.next();
      choice.seen_begin = static_cast<int32_t>(seen.size());
      for (int64_t t = r; how.penalty != 1 && t < vocab; t += 5) seen.push_back(static_cast<int32_t>(t));
      choice.seen_end = static_cast<int32_t>(seen.size());
    }
    int32_t* tokens = d.put_raw(std::vector<int32_t>(static_cast<size_t>(rows), -7));
    d.backend().sample({.logits = d.put(in[0]),
                        .choices = choices,
                        .seen = seen,
                        .tokens = tokens,
                        .rows = rows,
                        .vocab = vocab,
                        .type = d.type()});
    const std::vector<int32_t> chosen = d.get_raw(tokens, rows);
    return {Array(chosen.begin(), chosen.end())};
  };
  return c;
}

}  // namespace

Case paged_adam_case(size_t slab_bytes, int64_t steps) {
  return adam_case("paged", {700, 1, 0, 900, 33, 2500},
                   {.sum_squares = 1e4, .gradient_scale = 0.1, .max_grad_norm = 0.3, .learning_rate = 0.01},
                   0.1, 2, slab_bytes, steps);
}

std::vector<Case> learning_cases() {
  std::vector<Case> all;
  for (auto [rows, vocab] : {std::pair<int64_t, int64_t>{1, 2}, {5, 7}, {0, 16}, {11, 257}, {6, 4099}}) {
    all.push_back(entropy_case(rows, vocab, false, Dlogits::none));
    all.push_back(entropy_case(rows, vocab, true, Dlogits::own));
    all.push_back(entropy_case(rows, vocab, false, Dlogits::over_logits));
  }
  for (auto [rows, vocab] : {std::pair<int64_t, int64_t>{5, 7}, {6, 4099}}) {
    all.push_back(entropy_case(rows, vocab, false, Dlogits::none, 6));
    all.push_back(entropy_case(rows, vocab, true, Dlogits::own, 6));
    all.push_back(entropy_case(rows, vocab, false, Dlogits::over_logits, 6));
  }
  for (int64_t n : {0, 1, 31, 20011}) all.push_back(softcap_case(n, n == 31 ? 1 : 5, n == 20011));
  all.push_back(squares_case({}));
  all.push_back(squares_case({1}));
  all.push_back(squares_case({4096, 4097, 5, 0, 30000}));
  const std::vector<int64_t> sizes = {1, 0, 15, 4097, 33};
  all.push_back(adam_case("first step", sizes,
                          {.sum_squares = 1e4, .gradient_scale = 0.01, .learning_rate = 1e-3}, 0, 1));
  all.push_back(adam_case(
      "clipped, with weight decay", sizes,
      {.sum_squares = 1e4, .gradient_scale = 0.1, .max_grad_norm = 0.3, .learning_rate = 0.01}, 0.1, 7));
  all.push_back(adam_case(
      "below the clipping norm, many tensors", std::vector<int64_t>(40, 900),
      {.sum_squares = 4, .gradient_scale = 0.1, .max_grad_norm = 0.3, .learning_rate = 2e-4}, 0.01, 1000));
  all.push_back(adam8_case("first step", {1, 0, 255, 4097, 600},
                           {.sum_squares = 1e4, .gradient_scale = 0.01, .learning_rate = 1e-3}, 0, 1, false));
  all.push_back(
      adam8_case("clipped, with weight decay", {256, 4097, 33},
                 {.sum_squares = 1e4, .gradient_scale = 0.1, .max_grad_norm = 0.3, .learning_rate = 0.01},
                 0.1, 7, true));
  const StepScalars plain{.sum_squares = 1e4, .gradient_scale = 0.01, .learning_rate = 1e-3};
  all.push_back(adam_case("paged, several slabs", sizes, plain, 0.1, 3, 16 * 900));
  all.push_back(adam_case("paged, one slab", sizes, plain, 0, 1, 16 * 9000));
  all.push_back(sample_case("greedy", 3, 257, {.penalty = 1.2f}));
  all.push_back(sample_case("of all", 0, 5, {.temperature = 1}));
  all.push_back(sample_case("of all", 4, 33, {.temperature = 0.5}));
  all.push_back(
      sample_case("of the nucleus, penalized", 5, 1000, {.temperature = 0.7, .top_p = 0.9, .penalty = 1.3f}));
  all.push_back(sample_case("of the likeliest", 3, 300, {.temperature = 2, .top_p = 0.8, .top_k = 20}));
  return all;
}

}  // namespace qlora::test
