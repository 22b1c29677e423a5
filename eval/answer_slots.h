#pragma once
// One slot a request. Whoever spreads requests over passes, a log and a model marks what comes back here, so
// that a slot which nothing filled is an error and never an answer of zeros.

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace qlora {

class AnswerSlots {
 public:
  // `verb` names the call in messages; `parts` counts what answers each request.
  AnswerSlots(std::string verb, std::vector<size_t> parts)
      : verb_(std::move(verb)), left_(std::move(parts)) {}

  // A part of a request's answer has come; true when it was the last. Throws Error(failure) for a request
  // that is not there or has its answer already.
  bool fill(size_t request);
  // Throws Error(failure) unless every request has its whole answer.
  void check_full() const;

 private:
  std::string verb_;
  std::vector<size_t> left_;
};

// Throws Error(failure) unless there are as many answers as requests.
void check_answer_count(const char* verb, size_t answers, size_t requests);

}  // namespace qlora
