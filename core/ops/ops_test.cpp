#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/ops/kept_rows.h"
#include "core/ops/kv_cache.h"
#include "core/ops/op_lab.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

TEST_CASE_METHOD(OpLab, "gradients of the norm equal central differences") {
  Tensor w = random({5});
  CHECK(gradient_error({random({4, 5})}, [&](Context& c, std::span<const Var> in) {
          return add(c, in[0], rms_norm(c, w, in[0], 1e-5));
        }) < 1e-8);
}

TEST_CASE_METHOD(OpLab, "a norm by heads is that of every head and so are its gradients") {
  Tensor w = random({3}), x = random({4, 6});
  Context c = context();
  const Var by_heads = rms_norm(c, w, {x}, 1e-5, Readers::any, 2),
            each = rms_norm(c, w, {x.reshape({8, 3})}, 1e-5);
  CHECK(by_heads.value.to_doubles() == each.value.to_doubles());
  CHECK(gradient_error({x}, [&](Context& context, std::span<const Var> in) {
          return add(context, in[0], rms_norm(context, w, in[0], 1e-5, Readers::any, 2));
        }) < 1e-8);
}

TEST_CASE_METHOD(OpLab, "gradients of a sum and its norm equal central differences whoever reads them") {
  Tensor w = random({5});
  auto gradients = [&](auto read) {
    return gradient_error({random({4, 5}), random({4, 5})}, [&](Context& c, std::span<const Var> in) {
      return read(c, in, add_rms_norm(c, w, in[0], in[1], 1e-5));
    });
  };
  using Inputs = std::span<const Var>;
  CHECK(gradients([](Context&, Inputs, const NormOfSum& y) { return y.norm; }) < 1e-8);
  CHECK(gradients([](Context&, Inputs, const NormOfSum& y) { return y.sum; }) < 1e-8);
  CHECK(gradients([](Context& c, Inputs, const NormOfSum& y) { return swiglu(c, y.sum, y.norm); }) < 1e-8);
  CHECK(gradients([](Context& c, Inputs in, const NormOfSum& y) {
          return add(c, add(c, y.sum, in[0]), swiglu(c, y.norm, in[1]));  // the sum's gradient is shared
        }) < 1e-8);
}

TEST_CASE_METHOD(OpLab, "gradients of the centered norm equal central differences alone and of a sum") {
  const LayerNormWeights w{random({5}), random({5})}, plain{random({5}), {}};
  CHECK(gradient_error({random({4, 5})}, [&](Context& c, std::span<const Var> in) {
          return add(c, in[0], layer_norm(c, w, in[0], 1e-5));
        }) < 1e-8);
  CHECK(gradient_error({random({4, 5})}, [&](Context& c, std::span<const Var> in) {
          return layer_norm(c, plain, in[0], 1e-5);
        }) < 1e-8);
  auto of_sum = [&](Context& c, std::span<const Var> in) {
    NormOfSum y = add_layer_norm(c, w, in[0], in[1], 1e-5);
    return add(c, add(c, y.sum, in[0]), swiglu(c, y.norm, in[1]));
  };
  CHECK(gradient_error({random({4, 5}), random({4, 5})}, of_sum) < 1e-8);
}

TEST_CASE_METHOD(OpLab, "a sum and its norm in one pass have the bits of both ops") {
  for (const char* name : {"reference", "auto"}) {
    auto other = make_backend(name);
    Memory there(*other);
    Context c{.backend = *other, .memory = there, .axis = &axis};
    auto tensor = [&](Shape shape) {
      return Tensor::from_floats(there, shape, DType::f32,
                                 numbers(shape[0] * (shape.size() > 1 ? shape[1] : 1)));
    };
    const Tensor w = tensor({37}), a = tensor({9, 37}), b = tensor({9, 37}), g = tensor({9, 37});
    std::vector<std::vector<float>> results[2];
    for (bool together : {false, true}) {
      Tape tape;
      c.tape = &tape;
      Var x = tape.input(a), y = tape.input(b);
      NormOfSum n;
      if (together)
        n = add_rms_norm(c, w, x, y, 1e-5);
      else
        n.sum = add(c, x, y), n.norm = rms_norm(c, w, n.sum, 1e-5);
      Var out = swiglu(c, n.sum, n.norm);
      tape.backward(out, g);
      for (const Tensor& t : {n.sum.value, n.norm.value, tape.grad(x), tape.grad(y)})
        results[together].push_back(t.to_floats());
    }
    CHECK(results[0] == results[1]);
  }
}

TEST_CASE_METHOD(OpLab, "gradients of rope and attention equal central differences") {
  std::vector<float> inv_freq = {1.0f, 0.1f};
  for (int64_t window : {0, 2}) {
    AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 4, .window = window, .scale = 0.7};
    auto op = [&](Context& c, std::span<const Var> in) {
      RopeAngles angles = rope_angles(c, inv_freq);
      Var q = rope(c, angles, in[0], 4), k = rope(c, angles, in[1], 2);
      return add(c, attention(c, q, k, in[2], shape, 0), in[0]);
    };
    CHECK(gradient_error({random({rows(), 16}), random({rows(), 8}), random({rows(), 8})}, op) < 1e-8);
  }
}

TEST_CASE_METHOD(OpLab, "gradients of attention with softcap and bias equal central differences") {
  for (bool biased : {false, true}) {
    AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 4, .scale = 0.7, .softcap = 0.6};
    if (biased) shape.bias = random({4, 6});
    auto op = [&](Context& c, std::span<const Var> in) {
      return add(c, attention(c, in[0], in[1], in[2], shape, 0), in[0]);
    };
    CHECK(gradient_error({random({rows(), 16}), random({rows(), 8}), random({rows(), 8})}, op) < 1e-8);
  }
}

TEST_CASE_METHOD(OpLab, "a bias of attention must know all heads and distances") {
  Context c = context();
  Var q{random({rows(), 8})}, k{random({rows(), 4})};
  AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 2, .bias = random({4, 5})};
  CHECK_THROWS_WITH(attention(c, q, k, k, shape, 0), Contains("distances below 5, a sequence has 6 keys"));
  shape.bias = random({2, 6});
  CHECK_THROWS_WITH(attention(c, q, k, k, shape, 0), Contains("the bias is [2, 6], expected [4, 6]"));
}

TEST_CASE_METHOD(OpLab,
                 "gradients of the activation equal central differences also when both inputs are one") {
  auto two = [](Context& c, std::span<const Var> in) { return swiglu(c, in[0], in[1]); };
  CHECK(gradient_error({random({3, 4}), random({3, 4})}, two) < 1e-8);
  auto one = [](Context& c, std::span<const Var> in) { return swiglu(c, in[0], in[0]); };
  CHECK(gradient_error({random({3, 4})}, one) < 1e-8);
}

TEST_CASE_METHOD(OpLab, "gradients of every activation equal central differences") {
  for (Activation kind : {Activation::gelu, Activation::gelu_tanh, Activation::relu}) {
    auto alone = [&](Context& c, std::span<const Var> in) { return add(c, activate(c, kind, in[0]), in[0]); };
    CHECK(gradient_error({random({3, 4})}, alone) < 1e-8);
    auto two = [&](Context& c, std::span<const Var> in) { return gated(c, kind, in[0], in[1]); };
    CHECK(gradient_error({random({3, 4}), random({3, 4})}, two) < 1e-8);
  }
}

TEST_CASE_METHOD(OpLab, "the parts of a fused projection lie where they were and give their gradients back") {
  const std::vector<int64_t> widths = {3, 1, 2};
  Context c = context();
  const Var x{random({2, 12})};
  const std::vector<double> all = x.value.to_doubles();
  const std::vector<Var> parts = split_columns(c, x, 2, widths);
  CHECK(parts[0].value.to_doubles() == std::vector<double>{all[0], all[1], all[2], all[6], all[7], all[8],
                                                           all[12], all[13], all[14], all[18], all[19],
                                                           all[20]});
  CHECK(parts[1].value.to_doubles() == std::vector<double>{all[3], all[9], all[15], all[21]});
  auto one_part = [&](Context& inner, std::span<const Var> in) {
    std::vector<Var> p = split_columns(inner, in[0], 2, widths);
    return add(inner, swiglu(inner, p[1], in[1]), add(inner, swiglu(inner, in[1], p[1]), in[1]));
  };
  CHECK(gradient_error({random({5, 12}), random({5, 2})}, one_part) < 1e-8);  // nobody reads the others
  auto again = [&](Context& inner, std::span<const Var> in) {
    std::vector<Var> p = split_columns(inner, in[0], 1, std::vector<int64_t>{2, 2, 2});
    return add(inner, swiglu(inner, p[0], p[2]),
               split_columns(inner, in[0], 2, std::vector<int64_t>{1, 2})[0]);
  };
  CHECK(gradient_error({random({5, 6})}, again) < 1e-8);
  CHECK_THROWS_WITH(split_columns(c, x, 3, widths),
                    Contains("split_columns: x is [2, 12], expected [rows, 18]"));
}

TEST_CASE_METHOD(OpLab, "gradients of rope on part of a head equal central differences") {
  const std::vector<float> inv_freq = {1.0f, 0.1f};
  auto op = [&](Context& c, std::span<const Var> in) {
    return add(c, rope(c, rope_angles(c, inv_freq), in[0], 2), in[0]);
  };
  CHECK(gradient_error({random({rows(), 14})}, op) < 1e-8);
}

TEST_CASE_METHOD(OpLab, "positions are looked up where the axis has them and beyond the table refused") {
  Context c = context();
  const Tensor table = random({8, 3});
  const Var x = position_embedding(c, table, 2);
  CHECK_FALSE(x.needs_grad());
  for (int64_t i = 0; i < rows(); ++i) {
    const auto at = axis.positions[static_cast<size_t>(i)] + 2;
    CHECK(x.value.slice_rows(i, i + 1).to_doubles() == table.slice_rows(at, at + 1).to_doubles());
  }
  CHECK_THROWS_WITH(position_embedding(c, random({7, 3}), 2),
                    Contains("position 5 of a sequence is beyond the 5"));
}

TEST_CASE_METHOD(OpLab, "gradients of gathered rows reach those rows alone") {
  std::vector<int32_t> ids = {4, 0, 2};
  auto op = [&](Context& c, std::span<const Var> in) { return gather_rows(c, in[0], ids); };
  CHECK(gradient_error({random({6, 3})}, op) < 1e-8);
  auto twice = [&](Context& c, std::span<const Var> in) {
    return add(c, gather_rows(c, in[0], ids), gather_rows(c, in[0], std::vector<int32_t>{1, 2, 3}));
  };
  CHECK(gradient_error({random({6, 3})}, twice) < 1e-8);
}

TEST_CASE_METHOD(OpLab, "the embedding takes the rows that the axis names and asks for no gradient") {
  Tape tape;
  Context c = context(&tape);
  Tensor table = random({7, 3});
  Var x = embedding(c, table);
  CHECK_FALSE(x.needs_grad());
  for (int64_t i = 0; i < rows(); ++i) {
    auto token = axis.tokens[static_cast<size_t>(i)];
    CHECK(x.value.slice_rows(i, i + 1).to_doubles() == table.slice_rows(token, token + 1).to_doubles());
  }
}

TEST_CASE_METHOD(OpLab, "a scaled embedding is the rows times the scale") {
  Context c = context();
  Tensor table = random({7, 3});
  std::vector<double> expected = embedding(c, table).value.to_doubles();
  for (double& v : expected) v *= 2.5;
  CHECK(embedding(c, table, 2.5f).value.to_doubles() == expected);
}

TEST_CASE_METHOD(OpLab, "ops on values without gradients record nothing and keep nothing") {
  Tape tape;
  Context c = context(&tape);
  Var x{random({rows(), 8})}, k{random({rows(), 4})};
  Tensor w = random({8});
  size_t before = memory.used();
  {
    CHECK_FALSE(rms_norm(c, w, x, 1e-5).needs_grad());
    CHECK_FALSE(add_rms_norm(c, w, x, x, 1e-5).norm.needs_grad());
    CHECK_FALSE(swiglu(c, x, x).needs_grad());
    CHECK_FALSE(add(c, x, x).needs_grad());
    CHECK_FALSE(attention(c, x, k, k, {.heads = 4, .kv_heads = 2, .head_dim = 2}, 0).needs_grad());
  }
  CHECK(memory.used() == before);
}

TEST_CASE_METHOD(OpLab, "shape errors name the op and the operand and both shapes") {
  Context c = context();
  Var x{random({rows(), 8})};
  CHECK_THROWS_WITH(rms_norm(c, random({6}), x, 1e-5),
                    Contains("rms_norm: x is [10, 8], expected [rows, 6]"));
  CHECK_THROWS_WITH(add(c, x, Var{random({rows(), 7})}), Contains("add: b is [10, 7], expected [10, 8]"));
  CHECK_THROWS_WITH(swiglu(c, x, Var{random({2, 8})}), Contains("gated: up is [2, 8]"));
  AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 2};
  CHECK_THROWS_WITH(attention(c, x, x, x, shape, 0), Contains("attention: k is [10, 8], expected [10, 4]"));
  CHECK_THROWS_WITH(gather_rows(c, x, std::vector<int32_t>{10}), Contains("no row 10 in [10, 8]"));
  Context f32{.backend = *backend, .memory = memory, .axis = &axis};
  CHECK_THROWS_WITH(add(f32, x, x), Contains("f64") && Contains("f32"));
  Context no_axis{.backend = *backend, .memory = memory};
  CHECK_THROWS_WITH(embedding(no_axis, random({7, 3})), Contains("no axis"));
}

TEST_CASE_METHOD(OpLab, "a cache takes rows until it is full and says which sequence did not fit") {
  KvCache cache(memory, 2, 3, 6, 4, DType::f64);
  Tensor k = random({rows(), 4}), v = random({rows(), 4});
  for (int64_t layer = 0; layer < 2; ++layer) cache.append(layer, k, v, axis.cu);
  CHECK(cache.length(2) == 0);
  cache.advance(axis.cu);
  CHECK(cache.length(0) == 3);
  CHECK(cache.length(2) == 6);
  int64_t at = cache.first_row(2);
  CHECK(cache.keys(1).slice_rows(at, at + 6).to_doubles() == k.slice_rows(4, 10).to_doubles());
  CHECK(cache.values(0).slice_rows(0, 3).to_doubles() == v.slice_rows(0, 3).to_doubles());
  CHECK_THROWS_WITH(cache.append(0, k, v, axis.cu),
                    Contains("sequence 2 has room for 6 rows, 12 are needed"));
  cache.cut(2, 1);
  CHECK(cache.length(2) == 1);
  CHECK(cache.length(0) == 3);
  CHECK_THROWS_WITH(cache.cut(2, 2), Contains("sequence 2 has 1 rows and cannot be cut to 2"));
}

TEST_CASE("keys and values are kept as bf16 where attention reads them as that anyway") {
  auto kept_on = [](const Backend& backend, Operands operands) {
    return type_of_kept(backend, DType::f32, operands);
  };
  auto backend = make_backend("reference");
  CHECK(kept_on(*backend, Operands::bf16_amx) == DType::bf16);
  CHECK(kept_on(*backend, Operands::as_stored) == DType::f32);
  CHECK(type_of_kept(*backend, DType::f64, Operands::bf16) == DType::f64);
  CHECK(kept_on(*make_backend("cuda-emulated"), Operands::bf16) == DType::f32);
  CHECK(kept_on(*make_counting_backend(CountedKernels::cpu), Operands::bf16) == DType::bf16);
  CHECK(kept_on(*make_counting_backend(CountedKernels::cuda), Operands::bf16) == DType::f32);

  Memory memory(*backend);
  KvCache cache(memory, 1, 1, 4, 2, DType::bf16);
  // To the nearest, of two as near the even one; what is below the smallest normal number is zero.
  const std::vector<float> rows = {1.0f + 0x1p-8f, 1.0f + 0x3p-8f, -0x1.fffffcp-127f, -3.0f};
  const Tensor k = Tensor::from_floats(memory, {2, 2}, DType::f32, rows);
  cache.append(0, k, k, {0, 2});
  const std::vector<float> expected = {1.0f, 1.0f + 0x1p-6f, -0.0f, -3.0f};
  CHECK(cache.keys(0).slice_rows(0, 2).to_floats() == expected);
  CHECK(cache.values(0).slice_rows(0, 2).to_floats() == expected);
  CHECK_THROWS_WITH(keep_rows(k, Tensor(memory, {1, 2}, DType::bf16)), Contains("cannot keep f32 [2, 2]"));
}

TEST_CASE_METHOD(OpLab, "what a tape keeps for products has the gradients of what they round") {
  const auto w = quantize(memory, "w", 6, 8, numbers(6 * 8), {}, DType::f32, Operands::bf16);
  const auto stored_as_is = quantize(memory, "w", 6, 8, numbers(6 * 8), {}, DType::f32);
  const Tensor x = Tensor::from_floats(memory, {rows(), 8}, DType::f32, numbers(8 * rows()));
  const Tensor norm = Tensor::from_floats(memory, {8}, DType::f32, numbers(8));
  const RopeAngles angles{Tensor::from_floats(memory, {rows(), 2}, DType::f32, numbers(2 * rows())),
                          Tensor::from_floats(memory, {rows(), 2}, DType::f32, numbers(2 * rows()))};
  const AttentionShape heads{.heads = 2, .kv_heads = 2, .head_dim = 4, .operands = Operands::bf16};
  const Tensor dy = Tensor::from_floats(memory, {rows(), 6}, DType::f32, numbers(6 * rows()));
  std::vector<std::vector<float>> found;
  for (const DType kept : {DType::f32, DType::bf16}) {
    Tape tape;
    Context c = context(&tape);
    c.type = DType::f32;
    c.kept_type = kept;
    const Var in = tape.input(x);
    const Var n = rms_norm(c, norm, in, 1e-5, Readers::products);
    CHECK(n.value.type() == kept);
    CHECK(rms_norm(c, norm, in, 1e-5).value.type() == DType::f32);
    CHECK(activate(c, Activation::relu, in).value.type() == DType::f32);  // its backward reads it
    const Var q = rope(c, angles, in, 2), g = gated(c, Activation::silu, in, in);
    CHECK((q.value.type() == kept && g.value.type() == kept));
    const Var o = attention(c, q, q, in, heads, 0);
    CHECK((o.value.type() == DType::f32));
    if (kept == DType::bf16)
      CHECK_THROWS_WITH(linear(c, *stored_as_is, n),
                        Contains("x of w holds bf16 elements, which its products"));
    Var y = add(c, linear(c, *w, n), linear(c, *w, g));
    y = add(c, y, linear(c, *w, o));
    found.push_back(y.value.to_floats());
    tape.backward(y, dy);
    found.push_back(tape.grad(in).to_floats());
  }
  CHECK(found[0] == found[2]);
  CHECK(found[1] == found[3]);
}

TEST_CASE_METHOD(OpLab, "attention refuses a cache that keeps keys in another way") {
  Context c = context(nullptr);
  KvCache cache(memory, 1, 3, 6, 4, DType::f32);
  c.cache = &cache;
  Var x{random({rows(), 4})};
  CHECK_THROWS_WITH(attention(c, x, x, x, {.heads = 2, .kv_heads = 2, .head_dim = 2}, 0),
                    Contains("the cache has f32 keys, they are kept as f64"));
}

TEST_CASE_METHOD(OpLab, "a cache and a tape exclude each other") {
  Tape tape;
  Context c = context(&tape);
  KvCache cache(memory, 1, 3, 6, 4, DType::f64);
  c.cache = &cache;
  Var x{random({rows(), 4})};
  CHECK_THROWS_AS(attention(c, x, x, x, {.heads = 2, .kv_heads = 2, .head_dim = 2}, 0), Error);
}
