// What a worker answers: questions of a sweep, by a pack's runs and their base together.
#include "experiments/build_info.h"
#include "experiments/eval_rows.h"
#include "experiments/pack_worker.h"

namespace qlora {
namespace {

// Answers on their way to the parent, who stores them.
class TellingKeeper final : public AnswerKeeper {
 public:
  TellingKeeper(const std::vector<const AnswerJob*>& jobs,
                const std::function<void(const std::string&)>& send)
      : jobs_(jobs), send_(send) {}

  std::vector<GenerationRow> begin(GenerationSetRow& set) override {
    for (const AnswerJob* job : jobs_)
      if (job->key == set.key) {
        set.system = job->system;
        return job->known;
      }
    fail(ErrorKind::failure, "answers of {} are not those that were asked for", set.subject.name);
  }
  void keep(const Digest& set, const GenerationRow& row) override {
    send_(to_text(GeneratedMessage{set, row}));
  }

 private:
  const std::vector<const AnswerJob*>& jobs_;
  const std::function<void(const std::string&)>& send_;
};

QuestionFile questions_of(const AnswerJob& job) {
  QuestionFile file = read_questions(job.questions);
  QLORA_CHECK(file.content == job.content, data, "{} has changed since the sweep was started", job.questions);
  if (job.limit > 0 && job.limit < static_cast<int64_t>(file.questions.size()))
    file.questions.resize(static_cast<size_t>(job.limit));
  return file;
}

}  // namespace

// Jobs that ask the same in the same way are one call, so that all subjects share its batches.
bool PackWorker::answer_questions_of_all() try {
  struct Call {
    std::vector<const AnswerJob*> jobs;
    std::vector<AnsweringSubject> subjects;
  };
  std::map<std::string, Call> calls;
  auto ask = [&](const AnswerJob& job, const SubjectModel& subject, Adapter* adapter) {
    Call& asked = calls[fmt::format("{}\n{}\n{}", job.questions, job.limit, settings_text(job.settings))];
    asked.jobs.push_back(&job);
    asked.subjects.push_back({subject, job.step, adapter});
  };
  const SubjectModel base =
      base_subject(job_.base_key, job_.base_name, job_.model, quant_label(job_.runs[0].config));
  for (const AnswerJob& job : job_.base_answers) ask(job, base, nullptr);
  for (const RunJob& run : job_.runs) {
    if (run.answers.empty()) continue;
    Adapter* adapter = adapter_of(run);
    if (adapter == nullptr) continue;
    for (const AnswerJob& job : run.answers) ask(job, run_subject(run, job_.model), adapter);
  }
  for (const auto& [name, asked] : calls) {
    const QuestionFile file = questions_of(*asked.jobs[0]);
    phase("answers to " + file.name);
    TellingKeeper keeper(asked.jobs, send_);
    AnswerOptions options{
        .model = *model_,
        .memory = *memory_,
        .type = type_,
        .tokenizer = *tokenizer_,
        .keeper = &keeper,
        .program = program_line(),
        .progress = [&](int64_t done, int64_t all) { phase("answers to " + file.name, done, all); },
        .stop = stop_};
    answer_questions(options, file, asked.jobs[0]->settings, asked.subjects);
  }
  return true;
} catch (const GenerationStopped&) {
  return false;
}

}  // namespace qlora
