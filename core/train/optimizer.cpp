#include "core/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/base/check.h"
#include "core/io/safetensors.h"
#include "kernels/quant/dynamic8.h"

namespace qlora {

static_assert(sizeof(StepScalars) == 4 * sizeof(double), "StepScalars is stored as a tensor of four f64");

Optimizer::Optimizer(std::vector<Param*> params, Memory& memory, DType type, size_t slab_bytes,
                     bool eight_bit)
    : params_(std::move(params)), memory_(memory), type_(type), slab_bytes_(slab_bytes) {
  size_t bytes = 0;
  for (const Param* param : params_) {
    QLORA_CHECK(param->value.type() == type, failure, "optimizer: {} is {}, the run {}", param->name,
                name_of(param->value.type()), name_of(type));
    moments_.push_back(moments_of(*param, eight_bit && param->value.size() >= kLeastForEightBits));
    bytes += param->value.bytes();
  }
  if (slab_bytes_ > 0) page(bytes);
  scalars_ = Tensor::zeros(memory, {4}, DType::f64, Tag::optimizer);
}

Optimizer::State Optimizer::on_device(std::string name, Shape shape, DType type) const {
  State state{.name = std::move(name), .shape = std::move(shape), .type = type};
  state.tensor = Tensor::zeros(memory_, state.shape, type, Tag::optimizer);
  return state;
}

Optimizer::Moments Optimizer::moments_of(const Param& param, bool eight_bit) const {
  const std::string m = "exp_avg." + param.name, v = "exp_avg_sq." + param.name;
  const Shape& shape = param.value.shape();
  if (slab_bytes_ > 0)
    return {{.name = m, .shape = shape, .type = type_}, {.name = v, .shape = shape, .type = type_}};
  if (!eight_bit) return {on_device(m, shape, type_), on_device(v, shape, type_)};
  const int64_t n = param.value.size(), blocks = (n + kAdam8Block - 1) / kAdam8Block;
  return {on_device(m, {n}, DType::u8), on_device(v, {n}, DType::u8),
          on_device("exp_avg_absmax." + param.name, {blocks}, DType::f32),
          on_device("exp_avg_sq_absmax." + param.name, {blocks}, DType::f32)};
}

// Gives every moment its place in host memory.
void Optimizer::page(size_t bytes) {
  paged_ = HostArray(memory_, 2 * bytes, Tag::optimizer);
  std::byte* place = paged_.data();
  for (size_t i = 0; i < params_.size(); ++i) {
    const size_t size = params_[i]->value.bytes();
    moments_[i].m.on_host = {place, size};
    moments_[i].v.on_host = {place + bytes, size};
    place += size;
  }
}

double Optimizer::gradient_norm(double gradient_scale) {
  gradient_scale_ = gradient_scale;
  std::vector<TensorRef> grads;
  for (const Param* param : params_) grads.push_back({param->grad.data(), param->grad.size()});
  memory_.backend().sum_squares({.tensors = grads, .out = scalars_.as<double>(), .type = type_});
  double sum_squares = 0;
  scalars_.slice_rows(0, 1).to_host(std::as_writable_bytes(std::span(&sum_squares, 1)));
  return std::sqrt(sum_squares) * gradient_scale;
}

void Optimizer::step(const TrainConfig& config, double learning_rate, int64_t t) {
  // All but sum_squares, which gradient_norm() left on the device.
  const double scalars[3] = {gradient_scale_, config.max_grad_norm, learning_rate};
  static_assert(offsetof(StepScalars, gradient_scale) == sizeof(double));
  memory_.backend().copy(scalars_.as<double>() + 1, scalars, sizeof scalars, CopyKind::host_to_device);
  std::vector<AdamTensor> tensors;
  std::vector<Adam8Tensor> small;
  for (size_t i = 0; i < params_.size(); ++i) {
    void *p = params_[i]->value.data(), *g = params_[i]->grad.data();
    const int64_t n = params_[i]->value.size();
    const Moments& s = moments_[i];
    if (s.m.type == DType::u8) {
      small.push_back({p, g, s.m.tensor.as<uint8_t>(), s.v.tensor.as<uint8_t>(),
                       s.m_absmax.tensor.as<float>(), s.v_absmax.tensor.as<float>(), n, config.weight_decay});
    } else {
      tensors.push_back({p, g, s.m.data(), s.v.data(), n, config.weight_decay});
    }
  }
  if (!tensors.empty())
    memory_.backend().adamw({.tensors = tensors,
                             .scalars = scalars_.as<StepScalars>(),
                             .beta1 = config.beta1,
                             .beta2 = config.beta2,
                             .eps = config.epsilon,
                             .step = t,
                             .type = type_,
                             .slab_bytes = slab_bytes_});
  if (!small.empty())
    memory_.backend().adamw8({.tensors = small,
                              .scalars = scalars_.as<StepScalars>(),
                              .m_map = signed_dynamic_map().data(),
                              .v_map = unsigned_dynamic_map().data(),
                              .beta1 = config.beta1,
                              .beta2 = config.beta2,
                              .eps = config.epsilon,
                              .step = t,
                              .type = type_});
}

void Optimizer::zero_gradients() {
  for (Param* param : params_) param->grad.fill_zero();
}

void check_no_more(const SafetensorsFile& file, size_t expected) {
  QLORA_CHECK(file.tensors().size() <= expected, data,
              "{}: {} tensors, but this run's adapter has {}: a checkpoint of another run?",
              file.path().string(), file.tensors().size(), expected);
}

std::vector<Optimizer::State> Optimizer::states() const {
  if (slab_bytes_ > 0) memory_.backend().synchronize();
  std::vector<State> all;
  for (size_t i = 0; i < params_.size(); ++i) {
    const Moments& s = moments_[i];
    for (const State* state : {&s.m, &s.v, &s.m_absmax, &s.v_absmax})
      if (!state->name.empty()) all.push_back(*state);
    if (type_ != DType::f32)
      all.push_back({"param." + params_[i]->name, params_[i]->value.shape(), type_, params_[i]->value});
  }
  return all;
}

void Optimizer::save(const Path& file) const {
  const std::vector<State> all = states();
  std::vector<std::vector<std::byte>> host(all.size());
  std::vector<TensorOut> out;
  for (size_t i = 0; i < all.size(); ++i) {
    std::span<const std::byte> bytes = all[i].on_host;
    if (all[i].tensor) {
      host[i].resize(all[i].tensor.bytes());
      all[i].tensor.to_host(host[i]);
      bytes = host[i];
    }
    out.push_back({.name = all[i].name, .type = all[i].type, .shape = all[i].shape, .bytes = bytes});
  }
  write_safetensors(file, out);
}

void Optimizer::restore(const Path& path) {
  SafetensorsFile file(path);
  const std::vector<State> all = states();
  check_no_more(file, all.size());
  for (const State& state : all) {
    const TensorView& view = file.at(state.name);
    QLORA_CHECK(view.type == state.type && view.shape == state.shape, data,
                "{}: `{}`: expected {} {}, found {} {}", path.string(), state.name, name_of(state.type),
                to_string(state.shape), name_of(view.type), to_string(view.shape));
    if (state.tensor) {
      state.tensor.copy_from(Tensor::from_host(memory_, view.shape, view.type, view.bytes, Tag::scratch));
    } else {
      std::copy(view.bytes.begin(), view.bytes.end(), state.on_host.begin());
    }
  }
}

}  // namespace qlora
