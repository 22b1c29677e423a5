#include "eval/answer_slots.h"

#include <algorithm>

#include "core/base/check.h"

namespace qlora {

bool AnswerSlots::fill(size_t request) {
  QLORA_CHECK(request < left_.size(), failure, "Lm::{}: an answer to request {}, and there are {}", verb_,
              request, left_.size());
  QLORA_CHECK(left_[request] > 0, failure, "Lm::{}: request {} of {} was answered twice", verb_, request,
              left_.size());
  return --left_[request] == 0;
}

void AnswerSlots::check_full() const {
  const auto empty = std::find_if(left_.begin(), left_.end(), [](size_t left) { return left > 0; });
  QLORA_CHECK(empty == left_.end(), failure, "Lm::{}: request {} of {} was not answered", verb_,
              empty - left_.begin(), left_.size());
}

void check_answer_count(const char* verb, size_t answers, size_t requests) {
  QLORA_CHECK(answers == requests, failure, "Lm::{}: {} answers to {} requests", verb, answers, requests);
}

}  // namespace qlora
