#include "core/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/base/check.h"
#include "core/io/safetensors.h"

namespace qlora {

static_assert(sizeof(StepScalars) == 4 * sizeof(double), "StepScalars is stored as a tensor of four f64");

Optimizer::Optimizer(std::vector<Param*> params, Memory& memory, DType type, size_t slab_bytes)
    : params_(std::move(params)), memory_(memory), type_(type), slab_bytes_(slab_bytes) {
  size_t bytes = 0;
  for (const Param* param : params_) {
    QLORA_CHECK(param->value.type() == type, failure, "optimizer: {} is {}, the run {}", param->name,
                name_of(param->value.type()), name_of(type));
    places_.push_back(bytes);
    bytes += param->value.bytes();
    if (slab_bytes_ > 0) continue;
    for (std::vector<Tensor>& moments : moments_)
      moments.push_back(Tensor::zeros(memory, param->value.shape(), type, Tag::optimizer));
  }
  if (slab_bytes_ > 0)
    for (HostArray& moments : paged_) moments = HostArray(memory, bytes);
  scalars_ = Tensor::zeros(memory, {4}, DType::f64, Tag::optimizer);
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
  for (size_t i = 0; i < params_.size(); ++i)
    tensors.push_back({.p = params_[i]->value.data(),
                       .g = params_[i]->grad.data(),
                       .m = moment(i, 0),
                       .v = moment(i, 1),
                       .n = params_[i]->value.size(),
                       .weight_decay = config.weight_decay});
  memory_.backend().adamw({.tensors = tensors,
                           .scalars = scalars_.as<StepScalars>(),
                           .beta1 = config.beta1,
                           .beta2 = config.beta2,
                           .eps = config.epsilon,
                           .step = t,
                           .type = type_,
                           .slab_bytes = slab_bytes_});
}

void Optimizer::zero_gradients() {
  for (Param* param : params_) param->grad.fill_zero();
}

void check_no_more(const SafetensorsFile& file, size_t expected) {
  QLORA_CHECK(file.tensors().size() <= expected, data,
              "{}: {} tensors, but this run's adapter has {}: a checkpoint of another run?",
              file.path().string(), file.tensors().size(), expected);
}

void* Optimizer::moment(size_t i, int which) const {
  return slab_bytes_ > 0 ? paged_[which].data() + places_[i] : moments_[which][i].data();
}

Optimizer::Named Optimizer::named_moment(std::string name, size_t i, int which) const {
  const Tensor& value = params_[i]->value;
  Named named{.name = std::move(name), .shape = value.shape()};
  if (slab_bytes_ > 0) {
    named.on_host = {static_cast<std::byte*>(moment(i, which)), value.bytes()};
  } else {
    named.tensor = moments_[which][i];
  }
  return named;
}

std::vector<Optimizer::Named> Optimizer::tensors() const {
  if (slab_bytes_ > 0) memory_.backend().synchronize();
  std::vector<Named> all;
  for (size_t i = 0; i < params_.size(); ++i) {
    const Param& param = *params_[i];
    all.push_back(named_moment("exp_avg." + param.name, i, 0));
    all.push_back(named_moment("exp_avg_sq." + param.name, i, 1));
    if (type_ != DType::f32) all.push_back({"param." + param.name, param.value.shape(), param.value});
  }
  return all;
}

void Optimizer::save(const Path& file) const {
  std::vector<Named> named = tensors();
  std::vector<std::vector<std::byte>> host(named.size());
  std::vector<TensorOut> out;
  for (size_t i = 0; i < named.size(); ++i) {
    std::span<const std::byte> bytes = named[i].on_host;
    if (named[i].tensor) {
      host[i].resize(named[i].tensor.bytes());
      named[i].tensor.to_host(host[i]);
      bytes = host[i];
    }
    out.push_back({.name = named[i].name, .type = type_, .shape = named[i].shape, .bytes = bytes});
  }
  write_safetensors(file, out);
}

void Optimizer::restore(const Path& path) {
  SafetensorsFile file(path);
  const std::vector<Named> all = tensors();
  check_no_more(file, all.size());
  for (const Named& named : all) {
    const TensorView& view = file.at(named.name);
    QLORA_CHECK(view.type == type_ && view.shape == named.shape, data,
                "{}: `{}`: expected {} {}, found {} {}", path.string(), named.name, name_of(type_),
                to_string(named.shape), name_of(view.type), to_string(view.shape));
    if (named.tensor) {
      named.tensor.copy_from(Tensor::from_host(memory_, view.shape, type_, view.bytes, Tag::scratch));
    } else {
      std::copy(view.bytes.begin(), view.bytes.end(), named.on_host.begin());
    }
  }
}

}  // namespace qlora
