// Tasks that ask one model together.
#include "eval/ask_together.h"

#include <catch2/catch.hpp>
#include <stdexcept>

#include "core/models/tiny_model.h"

using namespace qlora;

namespace {

// Passes requests on and writes down how many came in each call.
class CountingLm final : public Lm {
 public:
  explicit CountingLm(Lm& inner) : inner_(inner) {}
  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest> r,
                                          const OnAnswer<NextTokenAnswer>& told) override {
    calls.push_back(r.size());
    return inner_.next_token(r, told);
  }
  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest> r,
                                                  const OnAnswer<LogLikelihoodAnswer>& told) override {
    calls.push_back(r.size());
    return inner_.log_likelihood(r, told);
  }
  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest> r,
                                             const OnAnswer<std::vector<int32_t>>& told) override {
    calls.push_back(r.size());
    if (broken) throw std::runtime_error("broken");
    return inner_.generate(r, told);
  }
  int64_t context_length() const override { return inner_.context_length(); }
  std::vector<int32_t> end_ids() const override { return {5, 9}; }
  std::vector<size_t> calls;
  bool broken = false;

 private:
  Lm& inner_;
};

struct Fixture {
  Fixture() : backend(make_backend("auto")), memory(*backend) {
    model = test::load_tiny_model(memory);
    adapter = test::make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
    for (const auto& ids : test::random_examples(3, {7, 1, 12, 5}, 61))
      for (SubjectIndex subject : {-1, 0}) {
        next.push_back({ids, {4, 60}, subject});
        continuations.push_back({ids, {5, 6}, subject});
        generations.push_back({.context = ids, .max_new_tokens = 3, .stop_ids = {2}, .subject = subject});
      }
    lm = make_model_lm(model, memory, {&adapter}, {.max_batch_tokens = 20});
  }
  std::unique_ptr<Backend> backend;
  Memory memory;
  std::shared_ptr<const Model> model;
  Adapter adapter;
  std::vector<NextTokenRequest> next;
  std::vector<LogLikelihoodRequest> continuations;
  std::vector<GenerateRequest> generations;
  std::unique_ptr<Lm> lm;
};

}  // namespace

TEST_CASE("tasks that ask together are answered as alone in one call a kind") {
  Fixture f;
  CountingLm counting(*f.lm);
  const auto alone = f.lm->log_likelihood(f.continuations);
  const auto letters = f.lm->next_token(f.next);
  const auto texts = f.lm->generate(f.generations);
  std::vector<size_t> told(2);
  auto continuations = [&](size_t first, size_t task) {
    return [&, first, task](Lm& lm) {
      const auto mine = std::span(f.continuations).subspan(first, 4);
      const auto answers = lm.log_likelihood(mine, [&](size_t request, const LogLikelihoodAnswer& answer) {
        CHECK(answer.log_likelihood == alone[first + request].log_likelihood);
        ++told[task];
      });
      REQUIRE(answers.size() == 4);
      for (size_t i = 0; i < 4; ++i) CHECK(answers[i].log_likelihood == alone[first + i].log_likelihood);
    };
  };
  int ended = 0;
  const std::vector<AskingJob> jobs = {
      continuations(0, 0), [&](Lm& lm) { CHECK(lm.log_likelihood({}).empty()); }, continuations(4, 1),
      [&](Lm& lm) {  // asks twice, of two kinds
        const auto answers = lm.next_token(f.next);
        for (size_t i = 0; i < answers.size(); ++i) CHECK(answers[i].logits == letters[i].logits);
        CHECK(lm.generate(f.generations) == texts);
        ++ended;
      },
      [&](Lm& lm) {
        ended += lm.context_length() > 0 && lm.end_ids() == std::vector<int32_t>{5, 9};
      }};
  ask_together(counting, jobs);
  CHECK(told == std::vector<size_t>{4, 4});
  CHECK(ended == 2);
  CHECK(counting.calls == std::vector<size_t>{8, 8, 8});
  ask_together(counting, {});
}

TEST_CASE("what one of several asking tasks throws comes out when the others have ended") {
  Fixture f;
  CountingLm counting(*f.lm);
  counting.broken = true;
  size_t answered = 0;
  const std::vector<AskingJob> jobs = {
      [&](Lm& lm) { answered += lm.log_likelihood(f.continuations).size(); },
      [&](Lm& lm) { lm.generate(f.generations); },
      [&](Lm&) { throw std::logic_error("bad data"); },
  };
  CHECK_THROWS_WITH(ask_together(counting, jobs), "broken");
  CHECK(answered == 8);
  // What hears of an answer may end the call, for all that asked.
  const std::vector<AskingJob> stopped = {
      [&](Lm& lm) {
        lm.log_likelihood(f.continuations,
                          [](size_t, const LogLikelihoodAnswer&) { throw std::runtime_error("full"); });
      },
      [&](Lm& lm) { answered += lm.log_likelihood(f.continuations).size(); }};
  CHECK_THROWS_WITH(ask_together(counting, stopped), "full");
  CHECK(answered == 8);
}
