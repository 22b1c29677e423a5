#include <algorithm>
#include <catch2/catch.hpp>

#include "core/base/philox.h"
#include "core/models/drafts.h"

using namespace qlora;

namespace {

using Tokens = std::vector<int32_t>;

Draft guess_after(const Tokens& tokens, int64_t most) {
  DraftText text;
  text.add(tokens);
  return text.guess(most);
}

// By trying every place.
Draft plain_guess(const Tokens& tokens, int64_t most) {
  Draft draft;
  const size_t n = tokens.size();
  size_t from = 0;
  for (size_t end = n - 1; end > 0; --end) {
    int64_t match = 0;
    while (match < std::min<int64_t>(kLongestMatch, static_cast<int64_t>(end)) &&
           tokens[end - 1 - static_cast<size_t>(match)] == tokens[n - 1 - static_cast<size_t>(match)])
      ++match;
    if (match < kShortestMatch || match <= draft.match) continue;
    draft.match = match;
    from = end;
  }
  Tokens longer = tokens;
  for (int64_t i = 0; i < most && draft.match > 0; ++i) {
    longer.push_back(longer[from++]);
    draft.tokens.push_back(longer.back());
  }
  return draft;
}

// A record of guesses that always come true, or never.
DraftRecord record_of(const Draft& draft, bool comes_true) {
  DraftRecord record;
  Tokens chosen = draft.tokens;
  for (int32_t& token : chosen) token += comes_true ? 0 : 1;
  for (int i = 0; i < 50; ++i) record.learn(draft, chosen);
  return record;
}

const Draft kDraft = {Tokens(15, 7), kLongestMatch};

}  // namespace

TEST_CASE("a text is guessed to go on as it did after the latest longest match") {
  Draft draft = guess_after({1, 2, 3, 4, 5, 9, 2, 3, 6, 8, 2, 3}, 3);
  CHECK(draft.match == 2);
  CHECK(draft.tokens == Tokens{6, 8, 2});  // the later of two places
  draft = guess_after({1, 2, 3, 4, 5, 9, 2, 3, 6, 1, 2, 3}, 2);
  CHECK(draft.match == 3);
  CHECK(draft.tokens == Tokens{4, 5});  // the longer of two matches
  CHECK(guess_after({1, 2, 3, 4, 2}, 4).match == 0);
  CHECK(guess_after({1, 2, 3, 4, 2}, 4).tokens.empty());
  CHECK(guess_after({}, 4).match == 0);
  CHECK(guess_after({5}, 4).match == 0);
  CHECK(guess_after({1, 2, 1, 2}, 0).tokens.empty());
}

TEST_CASE("a text that turns in a circle is guessed to go on turning") {
  CHECK(guess_after({4, 4, 4}, 5).tokens == Tokens{4, 4, 4, 4, 4});
  const Draft draft = guess_after({9, 1, 2, 3, 1, 2, 3, 1}, 7);
  CHECK(draft.match == 4);
  CHECK(draft.tokens == Tokens{2, 3, 1, 2, 3, 1, 2});
}

TEST_CASE("the chains find what trying every place finds while the text grows") {
  PhiloxStream random(5);
  DraftText text;
  Tokens tokens;
  for (int i = 0; i < 600; ++i) {
    // Stretches that were there before, and new tokens; no pair more often than a guess looks at.
    const bool again = i > 20 && random.uniform() < 0.1f;
    const auto from = static_cast<size_t>(random.uniform() * static_cast<float>(tokens.size()));
    Tokens more = {static_cast<int32_t>(random.uniform() * 60)};
    if (again)
      more.assign(tokens.begin() + static_cast<ptrdiff_t>(from),
                  tokens.begin() + static_cast<ptrdiff_t>(std::min(from + 9, tokens.size())));
    tokens.insert(tokens.end(), more.begin(), more.end());
    text.add(more);
    const Draft found = text.guess(6), expected = plain_guess(tokens, 6);
    CHECK(found.match == expected.match);
    CHECK(found.tokens == expected.tokens);
  }
}

TEST_CASE("a record tells texts that repeat themselves from others and forgets what was long ago") {
  const Draft draft{{1, 2, 3}, 2};
  DraftRecord record;
  const double at_first = record.probability(draft, 0);
  CHECK(record.probability(draft, 1) > at_first);  // a longer match
  CHECK(record_of(draft, true).probability(draft, 0) > 0.9);
  record = record_of(draft, false);
  CHECK(record.probability(draft, 0) < 0.1);
  CHECK(record.probability(draft, 1) == DraftRecord().probability(draft, 1));  // was never asked
  for (int i = 0; i < 40; ++i) record.learn(draft, Tokens{1});
  CHECK(record.probability(draft, 0) > 0.8);
  CHECK(record.probability(draft, 1) == DraftRecord().probability(draft, 1));
}

TEST_CASE("a fixed number of tokens is drafted as far as room and rows go") {
  DraftPlan plan(4);
  CHECK(plan.longest() == 4);
  const DraftRecord good = record_of(kDraft, true), bad = record_of(kDraft, false);
  const Draft none;
  auto chosen = [&](int64_t rows, const std::vector<DraftOffer>& offers) {
    return plan.choose(rows, offers);
  };
  using Counts = std::vector<int64_t>;
  CHECK(chosen(1, {{&kDraft, &bad, 100}}) == Counts{4});
  CHECK(chosen(1, {{&kDraft, &bad, 3}}) == Counts{3});
  CHECK(chosen(1, {{&kDraft, &bad, 0}}) == Counts{0});
  CHECK(chosen(1, {{&none, &good, 100}}) == Counts{0});
  CHECK(chosen(3, {{&kDraft, &good, 9}, {&none, &good, 9}, {&kDraft, &bad, 2}}) == Counts{4, 0, 2});
  CHECK(chosen(11, {{&kDraft, &bad, 9}, {&kDraft, &good, 9}}) == Counts{1, 4});  // 16 rows in all
  CHECK(chosen(16, {{&kDraft, &good, 9}}) == Counts{0});
  CHECK(DraftPlan(100).choose(1, std::vector<DraftOffer>{{&kDraft, &good, 100}}) == Counts{15});
  CHECK(DraftPlan(0).choose(1, std::vector<DraftOffer>{{&kDraft, &good, 100}}) == Counts{0});
}

TEST_CASE("drafts are made where they pay by what steps were measured to take") {
  const DraftRecord good = record_of(kDraft, true), bad = record_of(kDraft, false);
  // Tokens that are drafted of one sequence in twenty steps, after twenty.
  auto drafted = [](const DraftRecord& record, double row_cost) {
    DraftPlan plan(-1);
    const std::vector<DraftOffer> offers = {{&kDraft, &record, 100}};
    CHECK(plan.choose(1, offers)[0] == 0);  // nothing is measured
    int64_t all = 0;
    for (int i = 0; i < 40; ++i) {
      const int64_t n = plan.choose(1, offers)[0];
      if (i >= 20) all += n;
      plan.measured(1, n, 0.01 * (1 + row_cost * static_cast<double>(n)));
    }
    return all;
  };
  CHECK(drafted(good, 0.02) == 20 * 15);
  CHECK(drafted(good, 0.3) >= 20);
  CHECK(drafted(good, 1) <= 10);  // asks whether it still is so
  CHECK(drafted(bad, 0.3) == 0);
}

TEST_CASE("steps without drafts are measured anew when their rows change and from time to time") {
  DraftPlan plan(-1);
  const DraftRecord good = record_of(kDraft, true);
  const std::vector<DraftOffer> offers = {{&kDraft, &good, 100}};
  plan.measured(1, 0, 0.01);
  CHECK(plan.choose(1, offers)[0] > 0);
  CHECK(plan.choose(2, offers)[0] == 0);
  plan.measured(2, 0, 0.01);
  CHECK(plan.choose(2, offers)[0] > 0);
  int plain = 0;
  for (int i = 0; i < 200; ++i) {
    const int64_t n = plan.choose(2, offers)[0];
    if (n == 0) ++plain;
    plan.measured(2, n, 0.01 + 0.0005 * static_cast<double>(n));
  }
  CHECK(plain == 3);
  // A neighbour takes half the machine while steps have drafts: they stop, and come back.
  for (int i = 0; i < 60; ++i) plan.measured(2, 10, 0.1);
  CHECK(plan.choose(2, offers)[0] == 0);
  for (int i = 0; i < 300; ++i) plan.measured(2, 0, 0.01);
  CHECK(plan.choose(2, offers)[0] > 0);
}
