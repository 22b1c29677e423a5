#pragma once
// For tests of ops: an axis of ragged sequences on the reference backend in f64, random operands, and the
// comparison of an op's gradients with central differences.

#include <cmath>
#include <functional>
#include <vector>

#include "core/base/philox.h"
#include "core/base/test_data.h"
#include "core/ops/ops.h"

namespace qlora::test {

class OpLab {
 public:
  explicit OpLab(std::vector<int64_t> lengths = {3, 1, 6}) {
    axis.cu = {0};
    for (size_t s = 0; s < lengths.size(); ++s) {
      for (int64_t i = 0; i < lengths[s]; ++i) {
        axis.tokens.push_back(static_cast<int32_t>(axis.rows() % 7));
        axis.positions.push_back(static_cast<int32_t>(i));
        axis.keys.push_back({static_cast<uint32_t>(s), static_cast<uint32_t>(i)});
      }
      axis.cu.push_back(static_cast<int32_t>(axis.rows()));
    }
    axis.spans = {{0, axis.rows()}};
  }

  std::unique_ptr<Backend> backend = make_backend("reference");
  Memory memory{*backend};
  Axis axis;

  Context context(Tape* tape = nullptr, bool training = false) {
    return {.backend = *backend,
            .memory = memory,
            .axis = &axis,
            .type = DType::f64,
            .tape = tape,
            .training = training};
  }
  int64_t rows() const { return axis.rows(); }

  std::vector<float> numbers(int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = 2 * stream_.uniform() - 1;
    return v;
  }
  Tensor random(Shape shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return Tensor::from_floats(memory, std::move(shape), DType::f64, numbers(n));
  }
  std::shared_ptr<FrozenWeight> weight(const std::string& name, int64_t out, int64_t in) {
    return quantize(memory, name, out, in, numbers(out * in), {}, DType::f64);
  }
  Lora lora(int64_t rank, int64_t out, int64_t in, float dropout = 0) {
    return {{"a", random({rank, in}), Tensor::zeros(memory, {rank, in}, DType::f64)},
            {"b", random({out, rank}), Tensor::zeros(memory, {out, rank}, DType::f64)},
            0.5,
            dropout};
  }

  using Op = std::function<Var(Context&, std::span<const Var>)>;
  // The largest difference between the gradients of sum(weights * op(inputs)) and central differences, over
  // all elements of all inputs, with inputs also used outside the op (so that gradients must add up).
  double gradient_error(std::vector<Tensor> inputs, const Op& op) {
    Tensor weights;
    std::vector<std::vector<double>> found = gradients(inputs, op, weights);
    double worst = 0;
    for (size_t k = 0; k < inputs.size(); ++k) {
      auto* p = inputs[k].as<double>();
      for (int64_t i = 0; i < inputs[k].size(); ++i) {
        const double h = 1e-5, kept = p[i];
        p[i] = kept + h;
        double up = value(inputs, op, weights);
        p[i] = kept - h;
        double down = value(inputs, op, weights);
        p[i] = kept;
        worst = worse(worst, std::abs((up - down) / (2 * h) - found[k][static_cast<size_t>(i)]));
      }
    }
    return worst;
  }

 private:
  double value(const std::vector<Tensor>& inputs, const Op& op, const Tensor& weights) {
    Context c = context();
    std::vector<Var> vars;
    for (const Tensor& t : inputs) vars.push_back({t});
    Tensor y = op(c, vars).value;
    double sum = 0;
    for (int64_t i = 0; i < y.size(); ++i) sum += weights.as<double>()[i] * y.as<double>()[i];
    return sum;
  }

  std::vector<std::vector<double>> gradients(const std::vector<Tensor>& inputs, const Op& op,
                                             Tensor& weights) {
    Tape tape;
    Context c = context(&tape);
    std::vector<Var> vars;
    for (const Tensor& t : inputs) vars.push_back(tape.input(t));
    Var y = op(c, vars);
    weights = random(y.value.shape());
    tape.backward(y, weights);
    std::vector<std::vector<double>> all;
    for (const Var& v : vars) all.push_back(tape.grad(v).to_doubles());
    return all;
  }

  PhiloxStream stream_{5};
};

}  // namespace qlora::test
