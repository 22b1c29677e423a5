#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/ops/ops.h"
#include "eval/generation/answers.h"
#include "eval/lm.h"

namespace qlora {
namespace {

// Rows of logits that exist at one time: 64 rows of a 128k vocabulary are 32 MiB.
constexpr int64_t kLogitRows = 64;

// One sequence of a forward pass, and which of its rows are read.
struct Job {
  size_t request = 0;
  SubjectIndex subject = -1;
  std::vector<int32_t> tokens;
  int64_t first_read = 0, reads = 0;
};

class ModelLm final : public Lm {
 public:
  ModelLm(std::shared_ptr<const Model> model, Memory& memory, std::vector<Adapter*> subjects,
          ModelLmOptions options)
      : model_(std::move(model)),
        memory_(memory),
        subjects_(std::move(subjects)),
        options_(std::move(options)) {}

  int64_t context_length() const override { return model_->config().max_positions; }

  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest> requests) override {
    std::vector<NextTokenAnswer> answers(requests.size());
    std::vector<Job> jobs;
    for (size_t i = 0; i < requests.size(); ++i) {
      const NextTokenRequest& r = requests[i];
      check_tokens(r.context, "next_token", i);
      check_tokens(r.wanted, "next_token", i);
      jobs.push_back({i, r.subject, r.context, static_cast<int64_t>(r.context.size()) - 1, 1});
    }
    run(std::move(jobs), [&](const Job& job, const Tensor& logits) {
      const std::vector<int32_t>& wanted = requests[job.request].wanted;
      std::vector<float> row = logits.to_floats();
      NextTokenAnswer& a = answers[job.request];
      for (int32_t id : wanted) a.logits.push_back(row[static_cast<size_t>(id)]);
      std::vector<int32_t> target = {wanted.front()};
      a.log_sum_exp = losses(logits, target).front() + static_cast<double>(a.logits.front());
    });
    return answers;
  }

  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest> requests) override {
    std::vector<LogLikelihoodAnswer> answers(requests.size());
    std::vector<Job> jobs;
    for (size_t i = 0; i < requests.size(); ++i) {
      const LogLikelihoodRequest& r = requests[i];
      check_tokens(r.context, "log_likelihood", i);
      check_tokens(r.continuation, "log_likelihood", i);
      answers[i].greedy = true;
      Job job{i, r.subject, r.context, static_cast<int64_t>(r.context.size()) - 1,
              static_cast<int64_t>(r.continuation.size())};
      // The last token is predicted, never read.
      job.tokens.insert(job.tokens.end(), r.continuation.begin(), r.continuation.end() - 1);
      jobs.push_back(std::move(job));
    }
    std::vector<size_t> scored(requests.size(), 0);
    run(std::move(jobs), [&](const Job& job, const Tensor& logits) {
      const std::vector<int32_t>& all = requests[job.request].continuation;
      size_t& from = scored[job.request];
      std::vector<int32_t> targets(all.begin() + static_cast<std::ptrdiff_t>(from),
                                   all.begin() + static_cast<std::ptrdiff_t>(from) + logits.rows());
      from += targets.size();
      std::vector<int32_t> best;
      for (double loss : losses(logits, targets, &best)) answers[job.request].log_likelihood -= loss;
      if (best != targets) answers[job.request].greedy = false;
    });
    return answers;
  }

  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest> requests) override {
    for (size_t i = 0; i < requests.size(); ++i) check_tokens(requests[i].context, "generate", i);
    return generate_answers(
        {.model = *model_, .memory = memory_, .type = options_.type, .tokenizer = options_.tokenizer.get()},
        requests, [this](SubjectIndex subject) { return adapter(subject); });
  }

 private:
  Adapter* adapter(SubjectIndex subject) const {
    if (subject < 0) return nullptr;
    QLORA_CHECK(static_cast<size_t>(subject) < subjects_.size(), failure, "Lm: subject {} of {}", subject,
                subjects_.size());
    return subjects_[static_cast<size_t>(subject)];
  }

  void check_tokens(const std::vector<int32_t>& ids, const char* verb, size_t request) const {
    QLORA_CHECK(!ids.empty(), failure, "Lm::{}: request {} has no tokens", verb, request);
    for (int32_t id : ids)
      QLORA_CHECK(id >= 0 && id < model_->config().vocab_size, data,
                  "token {} is outside the model's vocabulary of {}: is the tokenizer the model's own?", id,
                  model_->config().vocab_size);
  }

  // NLL of every row's target; `best` gets the argmax of every row.
  std::vector<double> losses(const Tensor& logits, const std::vector<int32_t>& targets,
                             std::vector<int32_t>* best = nullptr) {
    Tensor loss(memory_, {logits.rows()}, options_.type, Tag::scratch);
    Tensor argmax(memory_, {logits.rows()}, DType::i32, Tag::scratch);
    CrossEntropy args;
    args.logits = logits.data();
    args.targets = targets.data();
    args.loss = loss.data();
    args.argmax = argmax.as<int32_t>();
    args.rows = logits.rows();
    args.vocab = logits.cols();
    args.type = options_.type;
    memory_.backend().cross_entropy(args);
    if (best != nullptr) {
      best->resize(targets.size());
      argmax.to_host(std::as_writable_bytes(std::span(*best)));
    }
    return loss.to_doubles();
  }

  // Forward passes over batches of jobs, longest first (the largest memory need shows at once); `read` gets
  // the wanted logits of a job, in pieces of whole rows, in order. A row's value never depends on its batch.
  template <class Read>
  void run(std::vector<Job> jobs, Read read) {
    std::stable_sort(jobs.begin(), jobs.end(),
                     [](const Job& a, const Job& b) { return a.tokens.size() > b.tokens.size(); });
    int64_t done = 0;
    const auto all = static_cast<int64_t>(jobs.size());
    for (size_t lo = 0; lo < jobs.size();) {
      size_t hi = lo;
      for (int64_t rows = 0; hi < jobs.size(); ++hi) {
        rows += static_cast<int64_t>(jobs[hi].tokens.size());
        if (hi > lo && rows > options_.max_batch_tokens) break;
      }
      std::span<Job> batch(jobs.data() + lo, hi - lo);
      std::stable_sort(batch.begin(), batch.end(),
                       [](const Job& a, const Job& b) { return a.subject < b.subject; });
      forward(batch, read);
      done += static_cast<int64_t>(hi - lo);
      if (options_.progress) options_.progress(done, all);
      lo = hi;
    }
  }

  template <class Read>
  void forward(std::span<const Job> batch, Read& read) {
    Axis axis;
    axis.cu.push_back(0);
    for (const Job& job : batch) {
      for (size_t t = 0; t < job.tokens.size(); ++t) {
        axis.tokens.push_back(job.tokens[t]);
        axis.positions.push_back(static_cast<int32_t>(t));
        axis.keys.push_back({0, static_cast<uint32_t>(t)});
      }
      const int64_t end = axis.rows();
      Adapter* a = adapter(job.subject);
      if (!axis.spans.empty() && axis.spans.back().adapter == a) {
        axis.spans.back().hi = end;
      } else {
        axis.spans.push_back({axis.cu.back(), end, a, 0, 0});
      }
      axis.cu.push_back(static_cast<int32_t>(end));
    }
    axis.validate(model_->config().vocab_size);
    Context c{memory_.backend(), memory_, &axis, options_.type};
    Var hidden = model_->hidden(c);
    read_logits(c, hidden.value, batch, read);
  }

  // The rows that all jobs of the batch read, kLogitRows at a time through the head.
  template <class Read>
  void read_logits(Context& c, const Tensor& hidden, std::span<const Job> batch, Read& read) {
    struct Piece {
      const Job* job;
      int64_t lo, hi;  // rows of the chunk
    };
    std::vector<Piece> pieces;
    std::vector<int32_t> rows;
    auto flush = [&] {
      if (rows.empty()) return;
      Tensor logits = logits_of(c, model_->head(), hidden, rows);
      for (const Piece& p : pieces) read(*p.job, logits.slice_rows(p.lo, p.hi));
      pieces.clear();
      rows.clear();
    };
    for (size_t i = 0; i < batch.size(); ++i)
      for (int64_t row = 0; row < batch[i].reads;) {
        const auto have = static_cast<int64_t>(rows.size());
        const int64_t take = std::min(kLogitRows - have, batch[i].reads - row);
        for (int64_t t = 0; t < take; ++t)
          rows.push_back(c.axis->cu[i] + static_cast<int32_t>(batch[i].first_read + row + t));
        pieces.push_back({&batch[i], have, have + take});
        row += take;
        if (have + take == kLogitRows) flush();
      }
    flush();
  }

  std::shared_ptr<const Model> model_;
  Memory& memory_;
  std::vector<Adapter*> subjects_;
  ModelLmOptions options_;
};

}  // namespace

std::unique_ptr<Lm> make_model_lm(std::shared_ptr<const Model> model, Memory& memory,
                                  std::vector<Adapter*> subjects, ModelLmOptions options) {
  return std::make_unique<ModelLm>(std::move(model), memory, std::move(subjects), std::move(options));
}

}  // namespace qlora
