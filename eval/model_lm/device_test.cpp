// Prefix reuse on a GPU. Products of a library may sum in another order where a pass has other rows
// (kernels/cuda/README.md), so that there reuse may move a bit: by how much. On the device that
// QLORA_CASES_BACKEND names, or on the emulation, with a library that does so for certain. An executable of
// its own, so that scripts/gpu_check.sh builds little.

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "eval/model_lm/test_lm.h"
#include "kernels/cuda/emulated/chosen.h"

using namespace qlora;
using namespace qlora::test;

namespace {

constexpr double kMost = 0.1;  // nats

// Heads that the tensor cores take; passes of more rows than a tile.
struct DeviceLm {
  const char* named = std::getenv("QLORA_CASES_BACKEND");
  Fixture fixture{
      {named == nullptr ? kEmulated : named, Operands::bf16},
      {.hidden = 128, .intermediate = 96, .heads = 2, .kv_heads = 1, .head_dim = 64, .max_positions = 1024}};
  const Requests requests{3, 8};
  std::unique_ptr<Lm> reusing = fixture.lm(true), plain = fixture.lm(false, 1);

  static constexpr const char* kEmulated = "cuda-emulated";
};

size_t place_of_largest(const std::vector<float>& v) {
  return static_cast<size_t>(std::max_element(v.begin(), v.end()) - v.begin());
}

// Of log-probabilities of wanted tokens: the largest difference. Which of them is likeliest may change where
// the two are no further apart than kMost.
double difference(const std::vector<NextTokenAnswer>& found, const std::vector<NextTokenAnswer>& expected,
                  int& flips) {
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const NextTokenAnswer &ours = found[i], &theirs = expected[i];
    for (size_t j = 0; j < theirs.logits.size(); ++j)
      largest = worse(
          largest, std::abs((ours.logits[j] - ours.log_sum_exp) - (theirs.logits[j] - theirs.log_sum_exp)));
    const size_t before = place_of_largest(theirs.logits), after = place_of_largest(ours.logits);
    if (before == after) continue;
    ++flips;
    CHECK(theirs.logits[before] - theirs.logits[after] <= kMost);
  }
  return largest;
}

double difference(const std::vector<LogLikelihoodAnswer>& found,
                  const std::vector<LogLikelihoodAnswer>& expected) {
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    largest = worse(largest, std::abs(found[i].log_likelihood - expected[i].log_likelihood));
  return largest;
}

}  // namespace

TEST_CASE(
    "prefix reuse on a device moves a log-probability by a tenth of a nat at most and flips nothing else") {
  emulated::test::Chosen order("QLORA_EMULATED_BLAS", "by_rows");
  DeviceLm lm;
  const Requests& requests = lm.requests;
  int flips = 0;
  const double next =
      difference(lm.reusing->next_token(requests.next), lm.plain->next_token(requests.next), flips);
  const double sums = difference(lm.reusing->log_likelihood(requests.continuations),
                                 lm.plain->log_likelihood(requests.continuations));
  std::printf("prefix reuse: log-probabilities differ by %.1e nats at most, %d flips in %zu answers\n",
              std::max(next, sums), flips, requests.next.size());
  CHECK(next <= kMost);
  CHECK(sums <= kMost);
  if (lm.named == nullptr) CHECK(next > 0);  // the other orders were met
}

TEST_CASE("prefix reuse on the emulated GPU changes no bit where orders of sums are fixed") {
  DeviceLm lm;
  if (lm.named != nullptr) return;
  int flips = 0;
  CHECK(difference(lm.reusing->next_token(lm.requests.next), lm.plain->next_token(lm.requests.next), flips) ==
        0);
  CHECK(difference(lm.reusing->log_likelihood(lm.requests.continuations),
                   lm.plain->log_likelihood(lm.requests.continuations)) == 0);
}
