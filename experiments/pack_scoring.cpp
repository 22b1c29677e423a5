// What a worker scores: held-out losses and tasks of questions.
#include <algorithm>
#include <chrono>

#include "experiments/answer_log.h"
#include "experiments/eval_rows.h"
#include "experiments/pack_worker.h"

namespace qlora {
namespace {

constexpr size_t kChunk = 32;  // examples between two looks at the stop flag

class Clock {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  std::string started = now_utc();

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void check_unchanged(const EvalJob& eval, const std::string& hash) {
  QLORA_CHECK(hash == eval.data_hash, data, "{} has changed since the sweep was started", eval.data);
}

}  // namespace

// A fresh adapter has B = 0 and answers exactly as the base does, so the base's loss is every run's loss at
// step 0, and runs on the same examples share it.
bool PackWorker::score_start() try {
  std::map<const Data*, EvalLoss> known;
  for (const RunJob& run : job_.runs)
    for (const EvalJob& eval : run.evals) {
      if (eval.task != "loss" || eval.step != 0) continue;
      Clock clock;
      const Data* data = &data_of(run);
      if (!known.contains(data)) known[data] = held_out_loss(run, nullptr);
      const EvalLoss& loss = known[data];
      send_(to_text(ScoredMessage{loss_row(eval, run_subject(run, job_.model), loss.mean(), loss.labels,
                                           clock.started, clock.seconds())}));
    }
  return true;
} catch (const StopRequested&) {
  return false;
}

bool PackWorker::score_end() try {
  for (const RunJob& run : job_.runs)
    for (const EvalJob& eval : run.evals)
      if (eval.task == "loss" && eval.step != 0) score_loss(run, eval);
  score_questions();
  return true;
} catch (const StopRequested&) {
  return false;
}

// Null when the run did not reach its end.
Adapter* PackWorker::adapter_of(const RunJob& run) {
  std::string id = hex(run.key);
  if (Run* trained = pack_ != nullptr ? pack_->find(id) : nullptr)
    return trained->status() == RunStatus::finished ? &trained->adapter() : nullptr;
  if (!loaded_.contains(id)) loaded_.emplace(id, load_peft(run.adapter, *model_, *memory_, type_));
  return loaded_.at(id).adapter.get();
}

EvalLoss PackWorker::held_out_loss(const RunJob& run, Adapter* adapter) {
  std::span<const TokenExample> examples = data_of(run).eval;
  EvalLoss all;
  for (size_t begin = 0; begin < examples.size(); begin += kChunk) {
    check_stop();
    phase("held-out loss of " + run.name, static_cast<int64_t>(begin), static_cast<int64_t>(examples.size()));
    EvalLoss part = evaluate_loss(*model_, *memory_, type_, adapter,
                                  examples.subspan(begin, std::min(kChunk, examples.size() - begin)),
                                  run.config.integer("per_device_eval_batch_size"));
    all.loss_sum += part.loss_sum;
    all.labels += part.labels;
  }
  return all;
}

void PackWorker::score_loss(const RunJob& run, const EvalJob& eval) {
  Adapter* adapter = adapter_of(run);
  if (adapter == nullptr) return;
  Clock clock;
  EvalLoss loss = held_out_loss(run, adapter);
  send_(to_text(ScoredMessage{loss_row(eval, run_subject(run, job_.model), loss.mean(), loss.labels,
                                       clock.started, clock.seconds())}));
}

// Evaluations that ask the same questions are one pass over all their subjects, so that the base's work is
// shared.
void PackWorker::score_questions() {
  std::map<std::string, std::vector<Asked>> passes;
  std::vector<Adapter*> adapters;
  auto name = [](const EvalJob& eval) { return eval.task + "\n" + eval.data + "\n" + eval.protocol; };
  for (const EvalJob& eval : job_.base_evals) {
    SubjectModel base =
        base_subject(job_.base_key, job_.base_name, job_.model, quant_label(job_.runs[0].config));
    passes[name(eval)].push_back({&eval, base, -1});
  }
  for (const RunJob& run : job_.runs) {
    SubjectIndex index = -1;
    for (const EvalJob& eval : run.evals) {
      if (eval.task == "loss") continue;
      Adapter* adapter = adapter_of(run);
      if (adapter == nullptr) break;
      if (index < 0) {
        index = static_cast<SubjectIndex>(adapters.size());
        adapters.push_back(adapter);
      }
      passes[name(eval)].push_back({&eval, run_subject(run, job_.model), index});
    }
  }
  GatheredAnswers log([&](const Digest& evaluation, std::span<const PartialAnswer> answers) {
    send_(to_text(AnswersMessage{evaluation, {answers.begin(), answers.end()}}));
  });
  std::string task;
  ModelLmOptions options;
  options.type = type_;
  options.tokenizer = tokenizer_;
  options.progress = [&](int64_t done, int64_t all) {
    log.flush();
    check_stop();
    phase(task, done, all);
  };
  if (passes.empty()) return;
  std::unique_ptr<Lm> lm = make_model_lm(model_, *memory_, adapters, options);
  for (const auto& [pass, asked] : passes) {
    task = asked[0].eval->task;
    phase(task);
    std::vector<Digest> keys(adapters.size() + 1);
    size_t known = 0;
    for (const Asked& one : asked) {
      keys[static_cast<size_t>(one.index + 1)] = one.eval->key;
      log.know(one.eval->key, one.eval->answers);
      known += one.eval->answers.size();
    }
    if (known > 0)
      send_(to_text(NoteMessage{fmt::format("{}: goes on after {} answers that are stored", task, known)}));
    std::unique_ptr<Lm> missing = make_remembering_lm(*lm, std::move(keys), log);
    if (task == "mmlu") {
      score_mmlu(*missing, asked);
    } else {
      score_task(*missing, asked);
    }
  }
}

void PackWorker::score_mmlu(Lm& lm, const std::vector<Asked>& asked) {
  Clock clock;
  const EvalJob& eval = *asked[0].eval;
  std::vector<SubjectIndex> subjects;
  for (const Asked& one : asked) subjects.push_back(one.index);
  MmluData data = read_mmlu(eval.data, eval.mmlu);
  check_unchanged(eval, data.content_hash);
  std::vector<MmluReport> reports = run_mmlu(lm, *tokenizer_, data, eval.mmlu, subjects);
  double share = clock.seconds() / static_cast<double>(asked.size());
  for (size_t i = 0; i < asked.size(); ++i) {
    send_(
        to_text(ScoredMessage{mmlu_row(*asked[i].eval, asked[i].subject, reports[i], clock.started, share)}));
    for (const std::string& warning : reports[i].warnings)
      send_(to_text(NoteMessage{asked[i].subject.name + ": " + warning}));
  }
}

void PackWorker::score_task(Lm& lm, const std::vector<Asked>& asked) {
  Clock clock;
  const EvalJob& eval = *asked[0].eval;
  std::vector<SubjectIndex> subjects;
  for (const Asked& one : asked) subjects.push_back(one.index);
  const Task& task = find_task(eval.task);
  const TaskData data = read_task(task, eval.data, eval.options);
  check_unchanged(eval, data.content_hash);
  const TaskPlan plan = plan_task(task, data, eval.options, *tokenizer_, lm.context_length());
  const std::vector<TaskReport> reports = run_task(lm, *tokenizer_, task, data, plan, subjects);
  const double share = clock.seconds() / static_cast<double>(asked.size());
  for (size_t i = 0; i < asked.size(); ++i)
    send_(to_text(ScoredMessage{
        task_row(*asked[i].eval, asked[i].subject, task, data, reports[i], clock.started, share)}));
  if (plan.cut > 0)
    send_(to_text(NoteMessage{fmt::format("{}: {} of {} requests were too long and lost their beginning",
                                          task.name, plan.cut, plan.requests.size())}));
}

}  // namespace qlora
