#pragma once
// Answers that outlive the process that found them: an Lm that asks only what its log does not know, and
// tells the log every answer as soon as it is there. A task that was interrupted, by kill -9 too, is run
// again as a whole and goes on at its first missing request; tasks know nothing of it.

#include <memory>
#include <string>
#include <vector>

#include "core/base/hash.h"
#include "eval/lm.h"

namespace qlora {

// Where answers are kept. A request is known by the evaluation that it belongs to and by the hash of what it
// asks; an answer is bytes that mean something to remembering_lm.cpp alone.
class AnswerLog {
 public:
  virtual ~AnswerLog() = default;
  // Null: not there.
  virtual const std::string* find(const Digest& evaluation, const Digest& request) const = 0;
  virtual void add(const Digest& evaluation, const Digest& request, std::string answer) = 0;
};

// `evaluations[s + 1]`: the key of the evaluation that requests of subject s are asked for; [0] is the
// base's. It must name all that an answer depends on beside the request: whose weights, in which state and
// type. Throws Error(failure) when a request's subject has no key, Error(data) when the log holds what is no
// answer. `inner` and `log` must outlive it.
std::unique_ptr<Lm> make_remembering_lm(Lm& inner, std::vector<Digest> evaluations, AnswerLog& log);

}  // namespace qlora
