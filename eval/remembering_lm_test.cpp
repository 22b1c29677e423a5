#include "eval/remembering_lm.h"

#include <catch2/catch.hpp>
#include <map>
#include <stdexcept>

#include "core/base/error.h"
#include "core/models/tiny_model.h"
#include "eval/answer_slots.h"
#include "eval/ask_together.h"
#include "eval/rolling.h"

using namespace qlora;

namespace {

class MapLog final : public AnswerLog {
 public:
  const std::string* find(const Digest& evaluation, const Digest& request) const override {
    auto found = answers.find({evaluation, request});
    return found == answers.end() ? nullptr : &found->second;
  }
  void add(const Digest& evaluation, const Digest& request, std::string answer) override {
    if (answers.size() == room) throw std::runtime_error("killed");
    answers[{evaluation, request}] = std::move(answer);
  }
  std::map<std::pair<Digest, Digest>, std::string> answers;
  size_t room = 1000;
};

// Answers the first request of a call and forgets the others.
class ForgetfulLm final : public Lm {
 public:
  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest>,
                                          const OnAnswer<NextTokenAnswer>& told) override {
    return first<NextTokenAnswer>(told);
  }
  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest>,
                                                  const OnAnswer<LogLikelihoodAnswer>& told) override {
    return first<LogLikelihoodAnswer>(told);
  }
  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest>,
                                             const OnAnswer<std::vector<int32_t>>& told) override {
    return first<std::vector<int32_t>>(told);
  }
  int64_t context_length() const override { return 100; }
  std::vector<int32_t> end_ids() const override { return {4}; }

 private:
  template <class Answer>
  std::vector<Answer> first(const OnAnswer<Answer>& told) {
    if (told) told(0, Answer{});
    return {Answer{}};
  }
};

struct Fixture {
  Fixture() : backend(make_backend("auto")), memory(*backend) {
    model = test::load_tiny_model(memory);
    adapter = test::make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
    for (const auto& ids : test::random_examples(3, {7, 1, 12, 5, 33, 3, 9}, 61))
      for (SubjectIndex subject : {-1, 0}) {
        next.push_back({ids, {4, 60}, subject});
        if (ids.size() % 2 == 0) next.back().continuation = {7, 2};
        continuations.push_back({ids, {5, 6}, subject});
        generations.push_back({.context = ids, .max_new_tokens = 3, .stop_ids = {2}, .subject = subject});
      }
  }
  std::unique_ptr<Lm> lm() { return make_model_lm(model, memory, {&adapter}, {.max_batch_tokens = 20}); }

  std::unique_ptr<Backend> backend;
  Memory memory;
  std::shared_ptr<const Model> model;
  Adapter adapter;
  std::vector<NextTokenRequest> next;
  std::vector<LogLikelihoodRequest> continuations;
  std::vector<GenerateRequest> generations;
};

const std::vector<Digest> kKeys = {sha256("base"), sha256("run")};

}  // namespace

TEST_CASE("an interrupted evaluation asks only what is missing and answers the same") {
  Fixture f;
  auto model_lm = f.lm();
  const auto next = model_lm->next_token(f.next);
  const auto continuations = model_lm->log_likelihood(f.continuations);
  const auto generations = model_lm->generate(f.generations);

  MapLog log;
  auto lm = make_remembering_lm(*model_lm, kKeys, log);
  auto go_on = [&](auto&& ask, size_t room) {
    log.room = log.answers.size() + room;
    CHECK_THROWS_WITH(ask(), "killed");
    const size_t kept = log.answers.size();
    CHECK(kept == log.room);
    log.room = 1000;
    return kept;
  };
  go_on([&] { lm->next_token(f.next); }, 5);
  size_t told = 0;
  auto again = lm->next_token(f.next, [&](size_t, const NextTokenAnswer&) { ++told; });
  CHECK(told == f.next.size());
  CHECK(log.answers.size() == f.next.size());
  for (size_t i = 0; i < next.size(); ++i) {
    CHECK(again[i].logits == next[i].logits);
    CHECK(again[i].log_sum_exp == next[i].log_sum_exp);
    CHECK(again[i].log_likelihood == next[i].log_likelihood);
  }
  go_on([&] { lm->log_likelihood(f.continuations); }, 3);
  auto likelihoods = lm->log_likelihood(f.continuations);
  for (size_t i = 0; i < likelihoods.size(); ++i) {
    CHECK(likelihoods[i].log_likelihood == continuations[i].log_likelihood);
    CHECK(likelihoods[i].greedy == continuations[i].greedy);
  }
  go_on([&] { lm->generate(f.generations); }, 2);
  CHECK(lm->generate(f.generations) == generations);

  // All of it is known now: nothing reaches the model, which has no room for one more answer.
  log.room = log.answers.size();
  lm->next_token(f.next);
  lm->log_likelihood(f.continuations);
  CHECK(lm->generate(f.generations) == generations);
}

TEST_CASE("a request that nobody answered is an error and no answer of zeros") {
  AnswerSlots slots("next_token", {2, 1});
  CHECK_FALSE(slots.fill(0));
  CHECK(slots.fill(1));
  CHECK_THROWS_WITH(slots.check_full(), Catch::Contains("next_token: request 0 of 2 was not answered"));
  CHECK(slots.fill(0));
  slots.check_full();
  CHECK_THROWS_WITH(slots.fill(1), Catch::Contains("request 1 of 2 was answered twice"));
  CHECK_THROWS_WITH(slots.fill(2), Catch::Contains("an answer to request 2, and there are 2"));

  Fixture f;
  ForgetfulLm forgetful;
  MapLog log;
  auto lm = make_remembering_lm(forgetful, kKeys, log);
  CHECK(lm->end_ids() == std::vector<int32_t>{4});
  CHECK_THROWS_WITH(lm->next_token(f.next), Catch::Contains("request 1 of 14 was not answered"));
  CHECK_THROWS_WITH(lm->log_likelihood(f.continuations), Catch::Contains("request 1 of 14 was not answered"));
  CHECK_THROWS_WITH(lm->generate(f.generations), Catch::Contains("request 1 of 14 was not answered"));
  CHECK(log.answers.size() == 3);  // what did come is kept

  // Those who take answers by their place count them.
  const std::vector<AskingJob> jobs = {[&](Lm& together) { together.log_likelihood(f.continuations); }};
  CHECK_THROWS_WITH(ask_together(forgetful, jobs),
                    Catch::Contains("log_likelihood: 1 answers to 14 requests"));
  const std::vector<RollingRequest> rolling = {{.tokens = {1, 2, 3}, .max_length = 1}};
  CHECK_THROWS_WITH(rolling_log_likelihood(forgetful, rolling), Catch::Contains("1 answers to 3 requests"));
}

TEST_CASE("remembered answers belong to one evaluation and one request") {
  Fixture f;
  auto model_lm = f.lm();
  MapLog log;
  make_remembering_lm(*model_lm, kKeys, log)->next_token(f.next);
  const size_t known = log.answers.size();
  // Another evaluation of the same requests, and other requests of the same evaluation.
  make_remembering_lm(*model_lm, {sha256("base"), sha256("other run")}, log)->next_token(f.next);
  CHECK(log.answers.size() == known + f.next.size() / 2);
  for (NextTokenRequest& r : f.next) r.wanted = {4};
  make_remembering_lm(*model_lm, kKeys, log)->next_token(f.next);
  CHECK(log.answers.size() == known + f.next.size() / 2 + f.next.size());
}

TEST_CASE("a damaged remembered answer and a subject without a key are refused") {
  Fixture f;
  auto model_lm = f.lm();
  MapLog log;
  auto lm = make_remembering_lm(*model_lm, kKeys, log);
  lm->log_likelihood(f.continuations);
  for (auto& [key, answer] : log.answers) answer.pop_back();
  CHECK_THROWS_WITH(lm->log_likelihood(f.continuations), Catch::Contains("damaged"));
  log.answers.clear();
  CHECK_THROWS_WITH(make_remembering_lm(*model_lm, {sha256("base")}, log)->next_token(f.next),
                    Catch::Contains("subject 0 has no evaluation"));
}
