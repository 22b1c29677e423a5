#pragma once
// Drafts: tokens of an answer that are guessed before the model has chosen them (speculative decoding,
// Leviathan et al. 2023), from the text itself: what followed the last time that it ran as it does now
// (prompt lookup decoding, A. Saxena 2023; transformers' prompt_lookup_num_tokens). A token step that reads
// guesses beside the last token reads the weights once for all of them, and every guess that comes true is a
// token for which no step is needed. Guesses that do not come true are forgotten: no token depends on them.

#include <cstdint>
#include <span>
#include <vector>

namespace qlora {

// Tokens that a token step reads of all sequences together, drafts included. A step of more rows than that
// is bound by arithmetic, not by reading weights.
constexpr int64_t kDraftRows = 16;

// A guess how a text goes on.
struct Draft {
  std::vector<int32_t> tokens;
  // The guess is what followed where the text's last `match` tokens stood before; 0: there is no guess. More
  // than kLongestMatch are not told apart.
  int64_t match = 0;
};
constexpr int64_t kShortestMatch = 2, kLongestMatch = 8;

// One growing text, and where its pairs of tokens stand: chains of places as in LZ77 coders. A token is
// added in constant time and takes 8 bytes; a guess looks at no more than 32 places.
class DraftText {
 public:
  void add(std::span<const int32_t> tokens);
  // What follows the latest of the places with the longest match: `most` tokens, the copy going on from
  // itself where the text ends.
  Draft guess(int64_t most) const;

 private:
  std::vector<int32_t> tokens_;
  std::vector<int32_t> before_;  // of the pair that ends here: where one of the same chain ended last, or -1
  std::vector<int32_t> latest_;  // by chain: the end of its last pair, or -1; made for the first token
};

// How often guesses for one text have come true, by length of the match: those that were not read count,
// too, so that it costs nothing to learn that a text repeats itself, or has stopped to. What was long ago
// counts less and less.
class DraftRecord {
 public:
  // That a guess's token at `place` comes true, if those before it do: every token that came true makes the
  // match longer by one.
  double probability(const Draft&, size_t place) const;
  // A draft, and the tokens that were chosen in its place.
  void learn(const Draft&, std::span<const int32_t> chosen);

 private:
  struct Count {
    double all = 0, came_true = 0;
  };
  static size_t count_of(const Draft&, size_t place);
  Count counts_[kLongestMatch + 1];
};

// A sequence for which tokens may be drafted.
struct DraftOffer {
  const Draft* draft;
  const DraftRecord* record;
  int64_t most;  // tokens of the draft that the sequence has room for
};

// How many tokens each sequence of a step drafts. With a fixed number: so many of each, the likelier ones
// first, as long as the step has no more than kDraftRows rows. Else those that pay: a row is added where the
// tokens that it may be expected to yield, by its seconds, exceed those of the step without it. What a row
// costs is measured in the steps themselves; which of them are drafted thus depends on the machine, and the
// tokens do not.
class DraftPlan {
 public:
  // `most` tokens of each sequence; -1: as many as pay.
  explicit DraftPlan(int64_t most) : most_(most) {}
  // Tokens of each offer. `rows`: of the step without drafts.
  std::vector<int64_t> choose(int64_t rows, std::span<const DraftOffer> offers);
  // A step that was chosen has been done.
  void measured(int64_t rows, int64_t drafted, double seconds);
  // Tokens of a draft that are ever read.
  int64_t longest() const;

 private:
  double row_cost() const;  // of a drafted row, in steps without drafts

  int64_t most_;
  int64_t rows_ = 0;         // of the steps that the following is of
  double plain_ = 0;         // seconds of a step without drafts; 0: not measured
  int64_t since_plain_ = 0;  // steps since the last one without drafts
  // Of the last steps: drafted rows, and what they took, in steps without drafts.
  double drafted_ = 0, took_ = 0;
};

}  // namespace qlora
