#include "eval/ask_together.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "eval/answer_slots.h"

namespace qlora {
namespace {

// What one job has asked and waits for.
template <class Request, class Answer>
struct Call {
  std::span<const Request> requests;
  const OnAnswer<Answer>* told = nullptr;
  std::vector<Answer> answers = {};
  std::exception_ptr failure = {};
  bool done = false;
};

// The calls of one kind that wait, by job: the order in which jobs came must not show.
template <class Request, class Answer>
class Waiting {
 public:
  using Method = std::vector<Answer> (Lm::*)(std::span<const Request>, const OnAnswer<Answer>&);
  Waiting(const char* verb, Method method) : verb_(verb), method_(method) {}

  void add(size_t job, Call<Request, Answer>& call) { calls_[job] = &call; }
  size_t size() const { return calls_.size(); }

  void answer(Lm& model) {
    if (calls_.empty()) return;
    std::vector<Request> all;
    std::vector<size_t> begins;
    std::vector<Call<Request, Answer>*> owners;
    for (const auto& [job, call] : calls_) {
      begins.push_back(all.size());
      owners.push_back(call);
      all.insert(all.end(), call->requests.begin(), call->requests.end());
    }
    calls_.clear();
    try {
      std::vector<Answer> answers = (model.*method_)(all, [&](size_t request, const Answer& answer) {
        // The last call that begins there or before; calls without requests begin where the next one does.
        const auto owner =
            static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), request) - begins.begin() - 1);
        if (*owners[owner]->told) (*owners[owner]->told)(request - begins[owner], answer);
      });
      check_answer_count(verb_, answers.size(), all.size());
      for (size_t i = 0; i < owners.size(); ++i) {
        auto begin = answers.begin() + static_cast<ptrdiff_t>(begins[i]);
        owners[i]->answers.assign(
            std::make_move_iterator(begin),
            std::make_move_iterator(begin + static_cast<ptrdiff_t>(owners[i]->requests.size())));
      }
    } catch (...) {
      for (auto* call : owners) call->failure = std::current_exception();
    }
    for (auto* call : owners) call->done = true;
  }

 private:
  const char* verb_;
  Method method_;
  std::map<size_t, Call<Request, Answer>*> calls_;
};

class Round {
 public:
  Round(Lm& model, size_t jobs) : model_(model), running_(jobs), failures_(jobs) {}

  // A job's thread from beginning to end. It holds the baton but while it waits for answers.
  void run(size_t job, const AskingJob& body);

  // Until all jobs have ended.
  void serve() {
    std::unique_lock baton(baton_);
    for (;;) {
      changed_.wait(baton, [&] { return running_ == 0; });
      const size_t asked = next_token_.size() + log_likelihood_.size() + generate_.size();
      if (asked == 0) return;
      next_token_.answer(model_);
      log_likelihood_.answer(model_);
      generate_.answer(model_);
      running_ = asked;
      changed_.notify_all();
    }
  }

  void throw_first_failure() const {
    for (const std::exception_ptr& failure : failures_)
      if (failure) std::rethrow_exception(failure);
  }

  template <class Request, class Answer>
  std::vector<Answer> ask(Waiting<Request, Answer>& waiting, size_t job, std::unique_lock<std::mutex>& baton,
                          std::span<const Request> requests, const OnAnswer<Answer>& told) {
    Call<Request, Answer> call{requests, &told};
    waiting.add(job, call);
    --running_;
    changed_.notify_all();
    changed_.wait(baton, [&] { return call.done; });
    if (call.failure) std::rethrow_exception(call.failure);
    return std::move(call.answers);
  }

 private:
  friend class JobLm;
  Lm& model_;
  std::mutex baton_;
  std::condition_variable changed_;
  size_t running_;  // jobs that neither wait nor have ended
  std::vector<std::exception_ptr> failures_;
  Waiting<NextTokenRequest, NextTokenAnswer> next_token_{"next_token", &Lm::next_token};
  Waiting<LogLikelihoodRequest, LogLikelihoodAnswer> log_likelihood_{"log_likelihood", &Lm::log_likelihood};
  Waiting<GenerateRequest, std::vector<int32_t>> generate_{"generate", &Lm::generate};
};

// What a job asks.
class JobLm final : public Lm {
 public:
  JobLm(Round& round, size_t job, std::unique_lock<std::mutex>& baton)
      : round_(round), job_(job), baton_(baton) {}

  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest> requests,
                                          const OnAnswer<NextTokenAnswer>& told) override {
    return round_.ask(round_.next_token_, job_, baton_, requests, told);
  }
  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest> requests,
                                                  const OnAnswer<LogLikelihoodAnswer>& told) override {
    return round_.ask(round_.log_likelihood_, job_, baton_, requests, told);
  }
  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest> requests,
                                             const OnAnswer<std::vector<int32_t>>& told) override {
    return round_.ask(round_.generate_, job_, baton_, requests, told);
  }
  int64_t context_length() const override { return round_.model_.context_length(); }
  std::vector<int32_t> end_ids() const override { return round_.model_.end_ids(); }

 private:
  Round& round_;
  size_t job_;
  std::unique_lock<std::mutex>& baton_;
};

void Round::run(size_t job, const AskingJob& body) {
  std::unique_lock baton(baton_);
  JobLm lm(*this, job, baton);
  try {
    body(lm);
  } catch (...) {
    failures_[job] = std::current_exception();
  }
  --running_;
  changed_.notify_all();
}

}  // namespace

void ask_together(Lm& model, std::span<const AskingJob> jobs) {
  Round round(model, jobs.size());
  std::vector<std::jthread> threads;
  for (size_t job = 0; job < jobs.size(); ++job)
    threads.emplace_back([&round, &jobs, job] { round.run(job, jobs[job]); });
  round.serve();
  threads.clear();
  round.throw_first_failure();
}

}  // namespace qlora
