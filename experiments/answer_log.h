#pragma once
// Answers of evaluations on their way into the store, so that an interrupted evaluation goes on where it was.

#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eval/remembering_lm.h"
#include "results/records.h"

namespace qlora {

// Gathers what is added until flush(), which is to be called after every pass of the model: what a process
// that is killed has told is what it had flushed.
class GatheredAnswers final : public AnswerLog {
 public:
  using Write = std::function<void(const Digest& evaluation, std::span<const PartialAnswer>)>;
  explicit GatheredAnswers(Write write) : write_(std::move(write)) {}

  // Answers that an earlier process has left.
  void know(const Digest& evaluation, std::span<const PartialAnswer> answers) {
    for (const PartialAnswer& a : answers) known_[{evaluation, a.request}] = a.answer;
  }

  const std::string* find(const Digest& evaluation, const Digest& request) const override {
    auto found = known_.find({evaluation, request});
    return found == known_.end() ? nullptr : &found->second;
  }
  void add(const Digest& evaluation, const Digest& request, std::string answer) override {
    added_[evaluation].push_back({request, std::move(answer)});
  }
  void flush() {
    for (const auto& [evaluation, answers] : std::exchange(added_, {})) write_(evaluation, answers);
  }

 private:
  Write write_;
  std::map<std::pair<Digest, Digest>, std::string> known_;
  std::map<Digest, std::vector<PartialAnswer>> added_;
};

}  // namespace qlora
