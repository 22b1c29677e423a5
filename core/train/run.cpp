#include "core/train/run.h"

#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/train/run_state.h"

namespace qlora {
namespace {

constexpr const char* kStatusNames[] = {"running", "finished", "nan_loss", "no_labels", "no_data"};

void check_config(const TrainConfig& c) {
  QLORA_CHECK(c.micro_batch >= 1, usage, "per_device_train_batch_size must be at least 1, found {}",
              c.micro_batch);
  QLORA_CHECK(c.accumulation >= 1, usage, "gradient_accumulation_steps must be at least 1, found {}",
              c.accumulation);
  QLORA_CHECK(c.max_steps >= 1, usage, "max_steps must be at least 1, found {}", c.max_steps);
  QLORA_CHECK(c.warmup_steps >= 0, usage, "warmup_steps must not be negative, found {}", c.warmup_steps);
  QLORA_CHECK(std::isfinite(c.learning_rate) && c.learning_rate >= 0, usage,
              "learning_rate must not be negative, found {}", c.learning_rate);
  QLORA_CHECK(std::isfinite(c.epsilon) && c.epsilon > 0, usage, "adam_epsilon must be positive, found {}",
              c.epsilon);
  QLORA_CHECK(std::isfinite(c.weight_decay) && c.weight_decay >= 0, usage,
              "weight_decay must be a number from 0, found {}", c.weight_decay);
  QLORA_CHECK(c.max_grad_norm >= 0, usage, "max_grad_norm must not be negative (0 = no clipping), found {}",
              c.max_grad_norm);
  QLORA_CHECK(!c.eight_bit || c.slab_bytes == 0, usage, "states of eight bits are not paged");
  QLORA_CHECK(c.beta1 >= 0 && c.beta1 < 1 && c.beta2 >= 0 && c.beta2 < 1, usage,
              "adam_beta1 and adam_beta2 must be in [0, 1), found {} and {}", c.beta1, c.beta2);
}

}  // namespace

const char* name_of(RunStatus status) {
  return kStatusNames[static_cast<size_t>(status)];
}

Run::Run(std::string id, LoraConfig lora, TrainConfig config, std::unique_ptr<Adapter> adapter,
         std::unique_ptr<ExampleSource> source, Memory& memory, DType type)
    : id_(std::move(id)),
      lora_(std::move(lora)),
      config_(config),
      adapter_(std::move(adapter)),
      source_(std::move(source)) {
  check_config(config_);
  QLORA_CHECK(adapter_ != nullptr && source_ != nullptr, failure,
              "run {}: an adapter and a source are needed", id_);
  state_ = std::make_unique<State>(Optimizer(adapter_->params(), memory, type, config_.slab_bytes, config_.eight_bit));
  state_->optimizer.zero_gradients();
}

Run::~Run() = default;

std::optional<Run::Micro> Run::next_micro() {
  Micro micro;
  micro.first = state_->micros * config_.micro_batch;
  for (int64_t i = 0; i < config_.micro_batch; ++i) {
    std::optional<TokenExample> example = source_->next();
    if (!example) {
      status_ = RunStatus::no_data;
      clear_batch();
      return std::nullopt;
    }
    micro.examples.push_back(std::move(*example));
  }
  return micro;
}

bool Run::stop_if_broken(double loss_or_norm) {
  if (std::isfinite(loss_or_norm)) return false;
  status_ = RunStatus::nan_loss;
  return true;
}

std::optional<StepRecord> Run::absorb(std::span<const double> example_losses, int64_t labels,
                                      int64_t tokens) {
  State& s = *state_;
  // Example by example, so that the sum does not depend on how the effective batch is cut.
  for (double loss : example_losses) s.loss_sum += loss;
  s.labels += labels;
  s.tokens += tokens;
  s.tokens_seen += tokens;
  ++s.micros;
  const bool broken = stop_if_broken(s.loss_sum);
  if (!broken && s.micros < config_.accumulation) return std::nullopt;
  std::optional<StepRecord> record;
  if (s.labels > 0 && !broken) record = update();
  if (s.labels == 0 && !broken) status_ = RunStatus::no_labels;
  clear_batch();
  if (active() && step_ >= config_.max_steps) status_ = RunStatus::finished;
  return record;
}

void Run::clear_batch() {
  State& s = *state_;
  s.optimizer.zero_gradients();
  s.micros = s.labels = s.tokens = 0;
  s.loss_sum = 0;
}

std::optional<StepRecord> Run::update() {
  State& s = *state_;
  const double per_label = 1 / static_cast<double>(s.labels);
  StepRecord record;
  record.loss = s.loss_sum / static_cast<double>(s.labels);
  record.grad_norm = s.optimizer.gradient_norm(per_label);
  if (stop_if_broken(record.grad_norm)) return std::nullopt;
  record.learning_rate = config_.learning_rate *
                         schedule_factor(config_.schedule, step_, config_.warmup_steps, config_.max_steps);
  record.tokens = s.tokens;
  record.labels = s.labels;
  record.step = ++step_;
  s.optimizer.step(config_, record.learning_rate, step_);
  const Json place = source_->save();
  s.history.push_back({record, place.is_object() ? place.value("epoch", 0.0) : 0.0});
  return record;
}

}  // namespace qlora
