#include <utility>

#include "core/base/check.h"
#include "eval/answer_slots.h"
#include "eval/generation/answers.h"
#include "eval/lm.h"
#include "eval/model_lm/tree_pass.h"

namespace qlora {
namespace {

class ModelLm final : public Lm {
 public:
  ModelLm(std::shared_ptr<const Model> model, Memory& memory, std::vector<Adapter*> subjects,
          ModelLmOptions options)
      : model_(std::move(model)),
        memory_(memory),
        subjects_(std::move(subjects)),
        options_(std::move(options)) {}

  int64_t context_length() const override { return model_->config().max_positions; }
  std::vector<int32_t> end_ids() const override { return model_->config().eos_ids; }

  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest> requests,
                                          const OnAnswer<NextTokenAnswer>& on_answer) override {
    std::vector<NextTokenAnswer> answers(requests.size());
    std::vector<std::vector<double>> parts(requests.size());
    std::vector<Ask> asks;
    for (size_t i = 0; i < requests.size(); ++i) {
      const NextTokenRequest& r = requests[i];
      check_tokens(r.context, "next_token", i);
      check_tokens(r.wanted, "next_token", i);
      // One target is enough for the sum of exponentials.
      std::span<const int32_t> targets = std::span(r.wanted).first(1), read;
      if (!r.continuation.empty()) {
        check_tokens(r.continuation, "next_token", i);
        targets = r.continuation;
        read = targets.first(targets.size() - 1);
        parts[i].resize(targets.size());
      }
      add_ask(asks, {r.subject, r.context, read}, targets, "next_token");
    }
    auto on_row = [&](size_t i, int64_t t, const RowAnswer& row) {
      NextTokenAnswer& a = answers[i];
      const NextTokenRequest& r = requests[i];
      if (!parts[i].empty()) parts[i][static_cast<size_t>(t)] = row.loss;
      if (t > 0) return;
      for (int32_t id : r.wanted) a.logits.push_back(row.logits[static_cast<size_t>(id)]);
      const int32_t target = r.continuation.empty() ? r.wanted.front() : r.continuation.front();
      a.log_sum_exp = row.loss + static_cast<double>(row.logits[static_cast<size_t>(target)]);
      a.likeliest = row.best;
    };
    run(asks, "next_token", true, on_row, [&](size_t i) {
      if (!parts[i].empty()) answers[i].log_likelihood = 0;
      for (double loss : parts[i]) *answers[i].log_likelihood -= loss;
      parts[i] = {};
      if (on_answer) on_answer(i, answers[i]);
    });
    return answers;
  }

  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest> requests,
                                                  const OnAnswer<LogLikelihoodAnswer>& on_answer) override {
    std::vector<LogLikelihoodAnswer> answers(requests.size());
    std::vector<std::vector<double>> parts(requests.size());
    std::vector<Ask> asks;
    for (size_t i = 0; i < requests.size(); ++i) {
      const LogLikelihoodRequest& r = requests[i];
      check_tokens(r.context, "log_likelihood", i);
      check_tokens(r.continuation, "log_likelihood", i);
      // The last token is predicted, never read.
      const std::span<const int32_t> continuation(r.continuation);
      add_ask(asks, {r.subject, r.context, continuation.first(continuation.size() - 1)}, continuation,
              "log_likelihood");
      answers[i].greedy = true;
      parts[i].resize(continuation.size());
    }
    auto on_row = [&](size_t i, int64_t t, const RowAnswer& row) {
      const auto at = static_cast<size_t>(t);
      if (row.best != requests[i].continuation[at]) answers[i].greedy = false;
      parts[i][at] = row.loss;
    };
    // Rows may come from several passes; they are added in their order.
    run(asks, "log_likelihood", false, on_row, [&](size_t i) {
      for (double loss : parts[i]) answers[i].log_likelihood -= loss;
      parts[i] = {};
      if (on_answer) on_answer(i, answers[i]);
    });
    return answers;
  }

  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest> requests,
                                             const OnAnswer<std::vector<int32_t>>& on_answer) override {
    for (size_t i = 0; i < requests.size(); ++i) {
      check_tokens(requests[i].context, "generate", i);
      check_subject(requests[i].subject);
    }
    int64_t done = 0;
    AnswerSlots slots("generate", std::vector<size_t>(requests.size(), 1));
    const Generator generator{.model = *model_,
                              .memory = memory_,
                              .type = options_.type,
                              .tokenizer = options_.tokenizer.get(),
                              .reuse_prefixes = options_.reuse_prefixes,
                              .on_answer = [&](size_t i, const std::vector<int32_t>& answer) {
                                slots.fill(i);
                                if (on_answer) on_answer(i, answer);
                                if (options_.progress)
                                  options_.progress(++done, static_cast<int64_t>(requests.size()));
                              }};
    auto answers = generate_answers(generator, requests, [this](SubjectIndex subject) {
      return subject < 0 ? nullptr : subjects_[static_cast<size_t>(subject)];
    });
    slots.check_full();
    return answers;
  }

 private:
  void check_subject(SubjectIndex subject) const {
    QLORA_CHECK(subject < 0 || static_cast<size_t>(subject) < subjects_.size(), failure,
                "Lm: subject {} of {}", subject, subjects_.size());
  }

  void check_tokens(const std::vector<int32_t>& ids, const char* verb, size_t request) const {
    QLORA_CHECK(!ids.empty(), failure, "Lm::{}: request {} has no tokens", verb, request);
    for (int32_t id : ids)
      QLORA_CHECK(id >= 0 && id < model_->config().vocab_size, data,
                  "token {} is outside the model's vocabulary of {}: is the tokenizer the model's own?", id,
                  model_->config().vocab_size);
  }

  // The last rows of the sequence predict the targets.
  void add_ask(std::vector<Ask>& asks, const SequenceView& sequence, std::span<const int32_t> targets,
               const char* verb) const {
    check_subject(sequence.subject);
    QLORA_CHECK(sequence.size() <= context_length(), usage,
                "Lm::{}: request {} reads {} tokens, the model's context is {}", verb, asks.size(),
                sequence.size(), context_length());
    asks.push_back({sequence, sequence.size() - static_cast<int64_t>(targets.size()), targets});
  }

  // `on_row(ask, t, row)` for every target, `finish(ask)` after the last one of an ask.
  template <class OnRow, class Finish>
  void run(std::span<const Ask> asks, const char* verb, bool logits, const OnRow& on_row,
           const Finish& finish) {
    TreePass pass(*model_, memory_, subjects_, asks,
                  {.type = options_.type,
                   .share = options_.reuse_prefixes,
                   .logits = logits,
                   .max_batch_tokens = options_.max_batch_tokens,
                   .max_prefix_tokens = options_.max_prefix_tokens});
    std::vector<size_t> parts;
    for (const Ask& ask : asks) parts.push_back(ask.targets.size());
    AnswerSlots slots(verb, std::move(parts));
    int64_t done = 0;
    pass.run(
        [&](size_t ask, int64_t t, const RowAnswer& row) {
          const bool last = slots.fill(ask);
          on_row(ask, t, row);
          if (!last) return;
          ++done;
          finish(ask);
        },
        [&] {
          if (options_.progress) options_.progress(done, static_cast<int64_t>(asks.size()));
        });
    slots.check_full();
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
