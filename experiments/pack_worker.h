#pragma once
// The inside of a worker: one loaded base, and what trains and scores on it. See worker.h.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"
#include "core/train/pack.h"
#include "datasets/dataset.h"
#include "eval/lm.h"
#include "experiments/job.h"

namespace qlora {

class PackWorker {
 public:
  using Send = std::function<void(const std::string& line)>;
  PackWorker(const Job&, Send, std::function<bool()> stop);
  ~PackWorker();

  // Each returns false when it was asked to stop before its end.
  bool score_start();
  bool train();
  bool score_end();
  bool answer_questions_of_all();

 private:
  struct StopRequested {};
  // What a data set gives to its runs.
  struct Data {
    std::shared_ptr<const std::vector<TokenExample>> train;
    std::vector<TokenExample> eval;
    std::string hash;  // of the file
  };
  // One run that trains here.
  struct Learner {
    const RunJob* job = nullptr;
    bool stepped = false;  // did a step in the last micro-batch: may be saved now
    double seconds = 0;    // of its next step
  };
  class StepObserver;

  void load();
  const Data& data_of(const RunJob&);
  std::unique_ptr<Run> make_run(const RunJob&);
  bool train_to_end();
  void after_step(Learner&, Run&, const StepRecord&);
  void finish(Learner&, Run&);
  void share_time(double seconds);

  // An evaluation of one state of a run, or of the base (run and adapter null).
  struct Due {
    const RunJob* run = nullptr;
    const EvalJob* eval = nullptr;
    Adapter* adapter = nullptr;
  };
  Adapter* adapter_of(const RunJob&);
  void tell_kept_scores(const RunJob&);
  void log_scores(const RunJob&, const EvalRow&);
  void score_earlier(const RunJob&);
  void score_reached();
  void score(const std::vector<Due>&);
  void tell(const RunJob*, const EvalRow&);
  EvalLoss held_out_loss(const RunJob&, Adapter*);
  void score_loss(const Due&);
  // Who is asked in one pass over a task's questions.
  struct Asked {
    const RunJob* run;
    const EvalJob* eval;
    SubjectModel subject;
    SubjectIndex index;
  };
  void score_questions(const std::vector<Due>&);
  void score_mmlu(Lm&, const std::vector<Asked>&);
  void score_task(Lm&, const std::vector<Asked>&);
  void phase(const std::string& what, int64_t done = 0, int64_t all = 0);
  void check_stop() const;

  const Job& job_;
  Send send_;
  std::function<bool()> stop_;
  DType type_ = DType::f32;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Memory> memory_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const Model> model_;
  std::map<std::string, std::unique_ptr<Data>> data_;  // by what decides its content
  std::map<std::string, LoadedAdapter> loaded_;        // by run
  std::map<std::string, Learner> learners_;            // by run
  std::map<std::string, RunStatus> ended_;             // by run: those whose end was told
  std::set<Digest> told_;                              // evaluations
  size_t together_ = 1;                                // tasks that ask at once, and share the time
  // By run and step: scores of an earlier process that the store does not have yet.
  std::map<Digest, std::vector<std::pair<int64_t, StepScores>>> kept_;
  std::unique_ptr<TrainPack> pack_;
};

}  // namespace qlora
