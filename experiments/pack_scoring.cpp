// What a worker scores: held-out losses and tasks of questions.
#include <algorithm>
#include <chrono>

#include "eval/ask_together.h"
#include "experiments/answer_log.h"
#include "experiments/eval_rows.h"
#include "experiments/pack_worker.h"
#include "experiments/run_file.h"
#include "experiments/worker.h"

namespace qlora {
namespace {

constexpr size_t kChunk = 32;  // examples between two looks at the stop flag

class Clock {
 public:
  // `together`: what shares the time that passes, in equal parts.
  explicit Clock(size_t together = 1) : together_(together) {}
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count() /
           static_cast<double>(together_);
  }
  std::string started = now_utc();

 private:
  size_t together_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void check_unchanged(const EvalJob& eval, const std::string& hash) {
  QLORA_CHECK(hash == eval.data_hash, data, "{} has changed since the sweep was started", eval.data);
}

}  // namespace

// A fresh adapter has B = 0 and answers exactly as the base does, so the base's loss is every run's loss at
// step 0, and runs on the same examples share it.
bool PackWorker::score_start() try {
  for (const RunJob& run : job_.runs) tell_kept_scores(run);
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
  for (const RunJob& run : job_.runs) score_earlier(run);
  return true;
} catch (const StopRequested&) {
  return false;
}

bool PackWorker::score_end() try {
  std::vector<Due> due;
  for (const EvalJob& eval : job_.base_evals) due.push_back({nullptr, &eval, nullptr});
  for (const RunJob& run : job_.runs)
    for (const EvalJob& eval : run.evals)
      if (eval.step == run.config.integer("max_steps") && !told_.contains(eval.key))
        if (Adapter* adapter = adapter_of(run)) due.push_back({&run, &eval, adapter});
  score(due);
  return true;
} catch (const StopRequested&) {
  return false;
}

// Scores of earlier steps that were told, but perhaps to a parent that did not live to store them.
void PackWorker::tell_kept_scores(const RunJob& run) {
  for (const EvalJob& eval : run.evals) {
    const Path kept = score_file(run.folder, eval.key);
    if (!std::filesystem::exists(kept)) continue;
    const std::string message = read_file(kept);
    const EvalRow row = scored_from_text(message, kept.string()).row;
    if (StepScores scores = logged_scores(run.config, eval, row.aggregates); !scores.empty())
      kept_[run.key].emplace_back(row.step, std::move(scores));
    send_(message);
    told_.insert(eval.key);
  }
}

// States that a run has left behind: they can be scored where their checkpoint is left.
void PackWorker::score_earlier(const RunJob& run) {
  const int64_t now = run.train ? latest_step(run.folder) : run.config.integer("max_steps");
  std::map<int64_t, std::vector<const EvalJob*>> open;
  for (const EvalJob& eval : run.evals)
    if (eval.step > 0 && eval.step < now && !told_.contains(eval.key)) open[eval.step].push_back(&eval);
  for (const auto& [step, evals] : open) {
    const Path checkpoint = checkpoint_folder(run.folder, step);
    if (!std::filesystem::exists(checkpoint)) {
      send_(to_text(NoteMessage{fmt::format(
          "{}: step {} cannot be scored any more: no checkpoint of it is left", run.name, step)}));
      continue;
    }
    LoadedAdapter loaded = load_peft(checkpoint, *model_, *memory_, type_);
    std::vector<Due> due;
    for (const EvalJob* eval : evals) due.push_back({&run, eval, loaded.adapter.get()});
    score(due);
  }
}

// What is asked for at the steps that runs have just reached, of all of them in one pass. A stop leaves it
// to the next start, which finds the run saved at this very step.
void PackWorker::score_reached() try {
  if (stop_()) return;
  std::vector<Due> due;
  for (auto& run : pack_->runs()) {
    const RunJob& job = *learners_.at(run->id()).job;
    for (const EvalJob& eval : job.evals)
      if (run->active() && eval.step > 0 && eval.step == run->step() && !told_.contains(eval.key))
        due.push_back({&job, &eval, &run->adapter()});
  }
  score(due);
} catch (const StopRequested&) {
}

void PackWorker::score(const std::vector<Due>& all) {
  for (const Due& due : all)
    if (due.eval->task == "loss") score_loss(due);
  score_questions(all);
}

// A later checkpoint must not outlive the score of an earlier step: the parent may die before it has stored
// it, and that state does not come again.
void PackWorker::tell(const RunJob* run, const EvalRow& row) {
  if (run != nullptr) log_scores(*run, row);
  const std::string message = to_text(ScoredMessage{row});
  if (run != nullptr && row.step > 0 && row.step < run->config.integer("max_steps"))
    write_file(score_file(run->folder, row.key), message);
  told_.insert(row.key);
  send_(message);
}

// Into the run's log_history: its own, and where that is written already for this state or a later one.
void PackWorker::log_scores(const RunJob& run, const EvalRow& row) {
  StepScores scores;
  for (const EvalJob& eval : run.evals)
    if (eval.key == row.key) scores = logged_scores(run.config, eval, row.aggregates);
  if (scores.empty()) return;
  if (Run* learning = pack_ != nullptr ? pack_->find(hex(run.key)) : nullptr)
    learning->log_scores(row.step, scores);
  for (int64_t step : checkpoint_steps(run.folder))
    if (step >= row.step)
      add_scores(checkpoint_folder(run.folder, step) / "trainer_state.json", row.step, scores);
  if (const Path whole = history_file(run.folder); std::filesystem::exists(whole))
    add_scores(whole, row.step, scores);
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

void PackWorker::score_loss(const Due& due) {
  Clock clock;
  EvalLoss loss = held_out_loss(*due.run, due.adapter);
  tell(due.run, loss_row(*due.eval, run_subject(*due.run, job_.model), loss.mean(), loss.labels,
                         clock.started, clock.seconds()));
}

// Evaluations that ask the same questions are one task for all their subjects, and all tasks ask together:
// what requests begin with in common is computed once.
void PackWorker::score_questions(const std::vector<Due>& states) {
  std::map<std::string, std::vector<Asked>> passes;
  std::vector<Adapter*> adapters;
  auto name = [](const EvalJob& eval) { return eval.task + "\n" + eval.data + "\n" + eval.protocol; };
  for (const Due& due : states) {
    if (due.eval->task == "loss") continue;
    SubjectIndex index = -1;
    SubjectModel subject = due.run != nullptr ? run_subject(*due.run, job_.model)
                                              : base_subject(job_.base_key, job_.base_name, job_.model,
                                                             quant_label(job_.runs[0].config));
    if (due.adapter != nullptr) {
      auto known = std::find(adapters.begin(), adapters.end(), due.adapter);
      index = static_cast<SubjectIndex>(known - adapters.begin());
      if (known == adapters.end()) adapters.push_back(due.adapter);
    }
    passes[name(*due.eval)].push_back({due.run, due.eval, std::move(subject), index});
  }
  GatheredAnswers log([&](const Digest& evaluation, std::span<const PartialAnswer> answers) {
    send_(to_text(AnswersMessage{evaluation, {answers.begin(), answers.end()}}));
  });
  std::string names;
  ModelLmOptions options;
  options.type = type_;
  options.tokenizer = tokenizer_;
  options.progress = [&](int64_t done, int64_t all) {
    log.flush();
    check_stop();
    phase(names, done, all);
  };
  if (passes.empty()) return;
  std::unique_ptr<Lm> lm = make_model_lm(model_, *memory_, adapters, options);
  std::vector<AskingJob> jobs;
  for (const auto& [pass, asked] : passes) {
    const std::string& task = asked[0].eval->task;
    names += (names.empty() ? "" : ", ") + task;
    std::vector<Digest> keys(adapters.size() + 1);
    size_t known = 0;
    for (const Asked& one : asked) {
      keys[static_cast<size_t>(one.index + 1)] = one.eval->key;
      log.know(one.eval->key, one.eval->answers);
      known += one.eval->answers.size();
    }
    if (known > 0)
      send_(to_text(NoteMessage{fmt::format("{}: goes on after {} answers that are stored", task, known)}));
    jobs.push_back([this, &log, &asked, keys = std::move(keys)](Lm& together) {
      std::unique_ptr<Lm> missing = make_remembering_lm(together, keys, log);
      if (asked[0].eval->task == "mmlu") {
        score_mmlu(*missing, asked);
      } else {
        score_task(*missing, asked);
      }
    });
  }
  phase(names);
  together_ = jobs.size();
  ask_together(*lm, jobs);
}

void PackWorker::score_mmlu(Lm& lm, const std::vector<Asked>& asked) {
  Clock clock(together_);
  const EvalJob& eval = *asked[0].eval;
  std::vector<SubjectIndex> subjects;
  for (const Asked& one : asked) subjects.push_back(one.index);
  MmluData data = read_mmlu(eval.data, eval.mmlu);
  check_unchanged(eval, data.content_hash);
  std::vector<MmluReport> reports = run_mmlu(lm, *tokenizer_, data, eval.mmlu, subjects);
  double share = clock.seconds() / static_cast<double>(asked.size());
  for (size_t i = 0; i < asked.size(); ++i) {
    tell(asked[i].run, mmlu_row(*asked[i].eval, asked[i].subject, reports[i], clock.started, share));
    const bool on_the_way =
        asked[i].run != nullptr && asked[i].eval->step < asked[i].run->config.integer("max_steps");
    if (on_the_way) continue;
    for (const std::string& warning : reports[i].warnings)
      send_(to_text(NoteMessage{asked[i].subject.name + ": " + warning}));
  }
}

void PackWorker::score_task(Lm& lm, const std::vector<Asked>& asked) {
  Clock clock(together_);
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
    tell(asked[i].run,
         task_row(*asked[i].eval, asked[i].subject, task, data, reports[i], clock.started, share));
  if (plan.cut > 0)
    send_(to_text(NoteMessage{fmt::format("{}: {} of {} requests were too long and lost their beginning",
                                          task.name, plan.cut, plan.requests.size())}));
}

}  // namespace qlora
