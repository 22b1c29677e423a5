#pragma once
// What evaluation asks of a model. Tasks make requests; they never call the model.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/models/model.h"
#include "core/models/sampling.h"
#include "core/text/tokenizer.h"

namespace qlora {

// Which trained state answers: an index into the adapters given to the Lm; -1 = the base model.
using SubjectIndex = int32_t;

// Logits of some tokens at the last position of a context.
struct NextTokenRequest {
  std::vector<int32_t> context;  // not empty
  std::vector<int32_t> wanted;   // token ids
  SubjectIndex subject = -1;
  std::vector<int32_t> continuation = {};  // not empty: its log-likelihood is asked too, in the same pass
};
struct NextTokenAnswer {
  std::vector<float> logits;                  // of `wanted`, same order
  double log_sum_exp = 0;                     // over the vocabulary: log-probability = logit - log_sum_exp
  int32_t likeliest = -1;                     // of the vocabulary: the first token with the largest logit
  std::optional<double> log_likelihood = {};  // of the continuation, where there is one
};

// Log-likelihood of a continuation after a context.
struct LogLikelihoodRequest {
  std::vector<int32_t> context, continuation;  // neither empty
  SubjectIndex subject = -1;
};
struct LogLikelihoodAnswer {
  double log_likelihood = 0;
  bool greedy = false;  // every token of the continuation was the argmax
};

// Tokens that go on from a context, up to the first of: max_new_tokens, a stop id, a stop string in their
// text. The token that ends the answer is part of it, so its text may go on behind a stop string:
// cut_at_stop() (core/text/stop_strings.h) gives what is meant.
struct GenerateRequest {
  std::vector<int32_t> context;  // not empty
  int64_t max_new_tokens = 256;
  std::vector<int32_t> stop_ids;
  SubjectIndex subject = -1;
  std::vector<std::string> stop_strings = {};  // need ModelLmOptions::tokenizer
  Sampling sampling = {};                      // default: greedy
};

// Hears of every answer as soon as it is there, in the order in which they come: `request` is its index. What
// it throws ends the call. May be empty.
template <class Answer>
using OnAnswer = std::function<void(size_t request, const Answer&)>;

// Batches in, answers in the same order out; an answer never depends on what shares its batch. Give all
// requests that there are, of all subjects, in one call: what they begin with in common is computed once.
// Rolling log-likelihoods are made of log-likelihoods: eval/rolling.h.
class Lm {
 public:
  virtual ~Lm() = default;
  virtual std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest>,
                                                  const OnAnswer<NextTokenAnswer>& = {}) = 0;
  virtual std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest>,
                                                          const OnAnswer<LogLikelihoodAnswer>& = {}) = 0;
  virtual std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest>,
                                                     const OnAnswer<std::vector<int32_t>>& = {}) = 0;
  virtual int64_t context_length() const = 0;
  // Tokens that end a text by the model's own files (eos_token_id of config.json and generation_config.json),
  // for GenerateRequest::stop_ids.
  virtual std::vector<int32_t> end_ids() const { return {}; }
};

struct ModelLmOptions {
  DType type = DType::f32;
  int64_t max_batch_tokens = 4096;  // rows of one forward pass
  // Reads the answers of requests with stop strings.
  std::shared_ptr<const Tokenizer> tokenizer = {};
  // Beginnings that requests share are computed once (see model_lm/request_tree.h). No bit depends on it.
  bool reuse_prefixes = true;
  int64_t max_prefix_tokens = 2048;  // of the beginnings that one pass keeps, unless a single one is longer
  std::function<void(int64_t done, int64_t all)> progress = {};  // may be empty
};
// Sorts requests, computes shared beginnings once, packs the rest (of all subjects together) on one axis, and
// restores the order.
std::unique_ptr<Lm> make_model_lm(std::shared_ptr<const Model>, Memory&, std::vector<Adapter*> subjects,
                                  ModelLmOptions);

}  // namespace qlora
