#include "experiments/pack_worker.h"

#include <malloc.h>

#include <chrono>

#include "core/base/parallel.h"
#include "experiments/plan.h"
#include "experiments/run_file.h"
#include "experiments/start_run.h"
#include "experiments/worker.h"
#include "kernels/devices.h"

namespace qlora {

namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Two configurations with the same text use the same tokenized examples.
std::string data_name(const DatasetConfig& c) {
  return fmt::format("{}\n{}\n{} {} {} {} {} {}", c.path, c.format, c.source_max_len, c.target_max_len,
                     c.train_on_source, c.max_train_samples, c.eval_dataset_size, name_of(c.overlong));
}

}  // namespace

// Keeps what the micro-batch just done has reported.
class PackWorker::StepObserver : public Observer {
 public:
  void on_step(const std::string& run, const StepRecord& record) override {
    records.emplace_back(run, record);
  }
  std::vector<std::pair<std::string, StepRecord>> records;
};

PackWorker::PackWorker(const Job& job, Send send, std::function<bool()> stop)
    : job_(job), send_(std::move(send)), stop_(std::move(stop)) {
  load();
}
PackWorker::~PackWorker() = default;

void PackWorker::load() {
  phase("loading");
  if (job_.threads > 0) set_thread_count(job_.threads);
  QLORA_CHECK(!job_.runs.empty(), failure, "a job without runs");
  const RunConfig& config = job_.runs[0].config;
  backend_ = make_backend(job_.backend, job_.device);
  memory_ = std::make_unique<Memory>(*backend_);
  memory_->reserve(job_.room);
  if (!backend_->host_memory()) memory_->reserve_lasting(job_.lasting);
  memory_->reserve_host(job_.offload);
  tokenizer_ = load_tokenizer(job_.model);
  const ContentHashes& known = job_.runs[0].content;  // a pack has one base
  QLORA_CHECK(known.tokenizer == tokenizer_->content_hash() && known.model == model_content_hash(job_.model),
              data, "{} has changed since the sweep was started", job_.model.string());
  LoadOptions options = load_options(config);
  type_ = options.type;
  model_ = load_model(job_.model, *memory_, options);
  ::malloc_trim(0);  // what reading the weights has left on the heap
}

const PackWorker::Data& PackWorker::data_of(const RunJob& run) {
  DatasetConfig dataset = dataset_config(run.config);
  std::unique_ptr<Data>& data = data_[data_name(dataset)];
  if (data == nullptr) {
    Dataset loaded = load_dataset(dataset, *tokenizer_);
    data = std::make_unique<Data>();
    data->hash = loaded.content_hash;
    data->train = std::make_shared<const std::vector<TokenExample>>(std::move(loaded.train));
    data->eval = std::move(loaded.eval);
  }
  QLORA_CHECK(run.content.data == data->hash, data, "{} has changed since the sweep was started",
              dataset.path);
  return *data;
}

std::unique_ptr<Run> PackWorker::make_run(const RunJob& job) {
  auto run = start_run(job.config, hex(job.key), data_of(job).train, *model_, *memory_, type_);
  if (Path checkpoint = latest_checkpoint(job.folder); !checkpoint.empty()) run->restore(checkpoint);
  for (const auto& [step, scores] : job.scored) run->log_scores(step, scores);
  for (const auto& [step, scores] : kept_[job.key]) run->log_scores(step, scores);
  return run;
}

bool PackWorker::train() {
  pack_ = std::make_unique<TrainPack>(model_, *memory_, pack_options(job_.runs[0].config));
  for (const RunJob& job : job_.runs) {
    if (!job.train) continue;
    std::unique_ptr<Run> run = make_run(job);
    send_(to_text(StartedMessage{job.key, run->step()}));
    Learner& learner = learners_[run->id()];
    learner.job = &job;
    if (!run->active()) finish(learner, *run);  // it was killed between its last checkpoint and its end
    pack_->add(std::move(run));
  }
  return train_to_end();
}

bool PackWorker::train_to_end() {
  score_reached();  // at its last checkpoint a run may have been stopped before it was scored
  if (stop_()) return false;
  bool whole = true;
  while (pack_->active()) {
    StepObserver observer;
    double begin = now_seconds();
    pack_->micro_step(observer);
    share_time(now_seconds() - begin);
    for (const auto& [id, record] : observer.records) after_step(learners_.at(id), *pack_->find(id), record);
    score_reached();
    const bool stopping = stop_();
    std::vector<std::string> saved;
    for (auto& run : pack_->runs()) {
      Learner& learner = learners_.at(run->id());
      const bool stepped = std::exchange(learner.stepped, false);
      if (!run->active()) {
        finish(learner, *run);
      } else if (stopping && stepped) {
        run->save(learner.job->folder / fmt::format("checkpoint-{}", run->step()), job_.model.string());
        saved.push_back(run->id());
      }
    }
    // Others may be far from their next step; nothing that a saved run came to meanwhile would be scored.
    for (const std::string& id : saved) pack_->take(id);
    whole = whole && saved.empty();
  }
  return whole;
}

// The time of a micro-batch belongs to its runs by their examples.
void PackWorker::share_time(double seconds) {
  double examples = 0;
  for (auto& run : pack_->runs())
    if (!ended_.contains(run->id())) examples += static_cast<double>(run->config().micro_batch);
  for (auto& run : pack_->runs())
    if (!ended_.contains(run->id()))
      learners_.at(run->id()).seconds +=
          seconds * static_cast<double>(run->config().micro_batch) / std::max(1.0, examples);
}

void PackWorker::after_step(Learner& learner, Run& run, const StepRecord& record) {
  learner.stepped = true;
  StepMessage message;
  message.run = learner.job->key;
  message.row = {record.step,
                 record.loss,
                 record.grad_norm,
                 record.learning_rate,
                 record.tokens,
                 record.labels,
                 std::exchange(learner.seconds, 0.0)};
  message.memory = memory_->peak();
  send_(to_text(message));
  const RunConfig& config = learner.job->config;
  if (run.active() && run.step() % config.integer("save_steps") == 0) {
    run.save(learner.job->folder / fmt::format("checkpoint-{}", run.step()), job_.model.string());
    prune_checkpoints(learner.job->folder, config.integer("save_total_limit"));
  }
}

// Writes the adapter of a run that has reached its end; says how it ended. Once.
void PackWorker::finish(Learner& learner, Run& run) {
  if (!ended_.emplace(run.id(), run.status()).second) return;
  if (run.status() == RunStatus::finished) {
    run.save_history(history_file(learner.job->folder));
    save_peft(learner.job->adapter, run.adapter(), run.lora(), job_.model.string());
  }
  const size_t peak = backend_->host_memory() ? peak_resident_memory() : most_gpu_bytes(*backend_);
  send_(
      to_text(EndedMessage{learner.job->key, name_of(run.status()), run.step(), static_cast<int64_t>(peak)}));
}

void PackWorker::phase(const std::string& what, int64_t done, int64_t all) {
  send_(to_text(PhaseMessage{what, done, all}));
}

void PackWorker::check_stop() const {
  if (stop_()) throw StopRequested{};
}

}  // namespace qlora
