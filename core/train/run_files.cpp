// Checkpoints of a run: the folder that Hugging Face's Trainer writes, in files of our own where theirs are
// pickles.

#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/io/safetensors.h"
#include "core/lora/build.h"
#include "core/lora/peft_config.h"
#include "core/train/run_state.h"

namespace qlora {
namespace {

constexpr const char* kAdapterFile = "adapter_model.safetensors";
constexpr const char* kAdapterConfig = "adapter_config.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kTrainerFile = "trainer_state.json";
constexpr const char* kDataFile = "data_state.json";

Json log_entry(const LoggedStep& logged) {
  const StepRecord& r = logged.record;
  return {{"epoch", logged.epoch},
          {"step", r.step},
          {"loss", r.loss},
          {"grad_norm", r.grad_norm},
          {"learning_rate", r.learning_rate}};
}

bool is_step(const Json& entry) {
  return entry.contains("loss");
}

// Steps' entries, each followed by the scores of its state.
Json with_scores(const Json& steps, const ScoreLog& scores) {
  Json log = Json::array();
  auto next = scores.begin();
  for (const Json& step : steps) {
    log.push_back(step);
    for (; next != scores.end() && next->first.first <= step.at("step").get<int64_t>(); ++next) {
      Json entry = next->second;
      entry["step"] = next->first.first;
      entry["epoch"] = step.at("epoch");
      log.push_back(std::move(entry));
    }
  }
  return log;
}

void put_scores(ScoreLog& log, int64_t step, const StepScores& scores) {
  log[{step, scores.begin()->first}] = scores;
}

ScoreLog read_scores(const Json& log_history) {
  ScoreLog log;
  for (const Json& entry : log_history) {
    if (is_step(entry)) continue;
    StepScores scores;
    for (const auto& [name, value] : entry.items())
      if (name != "step" && name != "epoch") scores[name] = value;
    if (!scores.empty()) put_scores(log, entry.at("step"), scores);
  }
  return log;
}

// Keys of transformers' TrainerState and no others: it takes each as an argument. What is not known here,
// such as total_flos, is left out and gets its default.
Json trainer_state(const TrainConfig& config, int64_t step, int64_t tokens_seen,
                   const std::vector<LoggedStep>& history, const ScoreLog& scores) {
  Json steps = Json::array();
  for (const LoggedStep& logged : history) steps.push_back(log_entry(logged));
  return {{"best_metric", nullptr},
          {"best_model_checkpoint", nullptr},
          {"epoch", history.empty() ? 0.0 : history.back().epoch},
          {"global_step", step},
          {"is_hyper_param_search", false},
          {"is_local_process_zero", true},
          {"is_world_process_zero", true},
          {"log_history", with_scores(steps, scores)},
          {"logging_steps", 1},
          {"max_steps", config.max_steps},
          {"num_input_tokens_seen", tokens_seen},
          {"train_batch_size", config.micro_batch},
          {"trial_name", nullptr},
          {"trial_params", nullptr}};
}

// Tokens and labels of every step are ours alone, so they lie beside the data position.
Json data_state(const Json& source, uint64_t seed, const std::vector<LoggedStep>& history) {
  Json tokens = Json::array(), labels = Json::array();
  for (const LoggedStep& logged : history) {
    tokens.push_back(logged.record.tokens);
    labels.push_back(logged.record.labels);
  }
  return {{"source", source},
          {"seed", seed},
          {"step_tokens", std::move(tokens)},
          {"step_labels", std::move(labels)}};
}

std::vector<LoggedStep> read_history(const Json& trainer, const Json& data) {
  std::vector<LoggedStep> history;
  size_t i = 0;
  for (const Json& entry : trainer.at("log_history")) {
    if (!is_step(entry)) continue;
    LoggedStep logged;
    logged.record = {.step = entry.at("step"),
                     .loss = entry.at("loss"),
                     .grad_norm = entry.at("grad_norm"),
                     .learning_rate = entry.at("learning_rate"),
                     .tokens = data.at("step_tokens").at(i),
                     .labels = data.at("step_labels").at(i)};
    logged.epoch = entry.at("epoch");
    history.push_back(logged);
    ++i;
  }
  return history;
}

void restore_param(const SafetensorsFile& file, const std::string& name, const Tensor& value) {
  const TensorView& view = file.at(name);
  QLORA_CHECK(view.shape == value.shape(), data, "{}: `{}`: expected shape {}, found {}",
              file.path().string(), name, to_string(value.shape()), to_string(view.shape));
  value.copy_from(
      Tensor::from_floats(value.memory(), view.shape, value.type(), to_floats(view), Tag::scratch));
}

// A factor or a dropout of another run would change what is learned without a trace in the tensors.
void check_lora(const Path& path, const LoraConfig& run) {
  const LoraConfig saved = read_peft_config(path).lora;
  auto same = [&](const char* key, auto found, auto expected) {
    QLORA_CHECK(found == expected, data, "{}: `{}` is {}, but this run's is {}: a checkpoint of another run?",
                path.string(), key, found, expected);
  };
  same("r", saved.r, run.r);
  same("lora_alpha", saved.alpha, run.alpha);
  same("lora_dropout", saved.dropout, run.dropout);
  same("use_rslora", saved.use_rslora, run.use_rslora);
}

void restore_adapter(const Path& path, Adapter& adapter) {
  SafetensorsFile file(path);
  check_no_more(file, adapter.lora.size() * 2);
  for (auto& [linear, lora] : adapter.lora) {
    restore_param(file, peft_name(linear, "lora_A"), lora.a.value);
    restore_param(file, peft_name(linear, "lora_B"), lora.b.value);
  }
}

Json read_json(const Path& path) {
  return parse_json(read_file(path), path.string());
}

}  // namespace

void Run::save(const Path& folder, const std::string& base) const {
  QLORA_CHECK(state_->micros == 0, failure, "run {}: a checkpoint in the middle of step {}", id_, step_ + 1);
  AtomicFolder out(folder);
  save_peft(out.path(), *adapter_, lora_, base);
  state_->optimizer.save(out.path() / kOptimizerFile);
  save_history(out.path() / kTrainerFile);
  write_file(out.path() / kDataFile,
             data_state(source_->save(), config_.seed, state_->history).dump(2) + "\n");
  out.commit();
}

void Run::save_history(const Path& file) const {
  const Json trainer = trainer_state(config_, step_, state_->tokens_seen, state_->history, state_->scores);
  write_file(file, trainer.dump(2) + "\n");
}

void Run::log_scores(int64_t step, const StepScores& scores) {
  put_scores(state_->scores, step, scores);
}

void add_scores(const Path& file, int64_t step, const StepScores& scores) {
  Json trainer = read_json(file);
  try {
    if (trainer.at("global_step").get<int64_t>() < step) return;
    Json steps = Json::array();
    for (const Json& entry : trainer.at("log_history"))
      if (is_step(entry)) steps.push_back(entry);
    ScoreLog log = read_scores(trainer.at("log_history"));
    put_scores(log, step, scores);
    trainer["log_history"] = with_scores(steps, log);
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: not the state of a run: {}", file.string(), e.what());
  }
  write_file(file, trainer.dump(2) + "\n");
}

void Run::restore(const Path& folder) {
  QLORA_CHECK(state_->micros == 0, failure, "run {}: restored in the middle of step {}", id_, step_ + 1);
  try {
    const Json trainer = read_json(folder / kTrainerFile), data = read_json(folder / kDataFile);
    QLORA_CHECK(data.at("seed") == config_.seed, data, "{}: seed {} is not this run's {}",
                (folder / kDataFile).string(), data.at("seed").dump(), config_.seed);
    step_ = trainer.at("global_step");
    state_->tokens_seen = trainer.at("num_input_tokens_seen");
    state_->history = read_history(trainer, data);
    state_->scores = read_scores(trainer.at("log_history"));
    source_->restore(data.at("source"));
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: the state of the run is not readable: {}", folder.string(), e.what());
  }
  check_lora(folder / kAdapterConfig, lora_);
  restore_adapter(folder / kAdapterFile, *adapter_);
  state_->optimizer.restore(folder / kOptimizerFile);
  status_ = step_ >= config_.max_steps ? RunStatus::finished : RunStatus::running;
}

}  // namespace qlora
