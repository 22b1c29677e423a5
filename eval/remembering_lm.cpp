#include "eval/remembering_lm.h"

#include <cstring>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "eval/answer_slots.h"

namespace qlora {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);  // of stored answers

template <class T>
void put(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <class T>
void put(std::string& bytes, const std::vector<T>& values) {
  put(bytes, static_cast<int64_t>(values.size()));
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// Reads what put() wrote.
class Reader {
 public:
  explicit Reader(const std::string& bytes) : rest_(bytes) {}
  template <class T>
  T get() {
    T value{};
    copy(&value, sizeof value);
    return value;
  }
  template <class T>
  std::vector<T> list() {
    const auto n = static_cast<size_t>(get<int64_t>());
    QLORA_CHECK(n <= rest_.size() / sizeof(T), data, "a remembered answer is damaged");
    std::vector<T> values(n);
    copy(values.data(), n * sizeof(T));
    return values;
  }
  bool more() const { return !rest_.empty(); }
  void end() const { QLORA_CHECK(rest_.empty(), data, "a remembered answer is damaged"); }

 private:
  void copy(void* to, size_t bytes) {
    QLORA_CHECK(bytes <= rest_.size(), data, "a remembered answer is damaged");
    if (bytes > 0) std::memcpy(to, rest_.data(), bytes);
    rest_.remove_prefix(bytes);
  }
  std::string_view rest_;
};

// What is asked, but by whom; one text a kind of request and form of its answer: one in a form from before
// is not found, and asked again.
std::string text_of(const NextTokenRequest& r) {
  std::string bytes = "next_token 2";
  put(bytes, r.context);
  put(bytes, r.wanted);
  if (!r.continuation.empty()) put(bytes, r.continuation);
  return bytes;
}
std::string text_of(const LogLikelihoodRequest& r) {
  std::string bytes = "log_likelihood";
  put(bytes, r.context);
  put(bytes, r.continuation);
  return bytes;
}
std::string text_of(const GenerateRequest& r) {
  std::string bytes = "generate";
  put(bytes, r.context);
  put(bytes, r.max_new_tokens);
  put(bytes, r.stop_ids);
  put(bytes, static_cast<int64_t>(r.stop_strings.size()));
  for (const std::string& stop : r.stop_strings) {
    put(bytes, static_cast<int64_t>(stop.size()));
    bytes += stop;
  }
  const Sampling& s = r.sampling;
  put(bytes, s.temperature);
  put(bytes, s.top_p);
  put(bytes, s.top_k);
  put(bytes, s.repetition_penalty);
  put(bytes, s.key);
  return bytes;
}

std::string to_bytes(const NextTokenAnswer& a) {
  std::string bytes;
  put(bytes, a.logits);
  put(bytes, a.log_sum_exp);
  put(bytes, a.likeliest);
  if (a.log_likelihood) put(bytes, *a.log_likelihood);
  return bytes;
}
std::string to_bytes(const LogLikelihoodAnswer& a) {
  std::string bytes;
  put(bytes, a.log_likelihood);
  put(bytes, a.greedy);
  return bytes;
}
std::string to_bytes(const std::vector<int32_t>& a) {
  std::string bytes;
  put(bytes, a);
  return bytes;
}

void from_bytes(Reader& reader, NextTokenAnswer& a) {
  a.logits = reader.list<float>();
  a.log_sum_exp = reader.get<double>();
  a.likeliest = reader.get<int32_t>();
  if (reader.more()) a.log_likelihood = reader.get<double>();
}
void from_bytes(Reader& reader, LogLikelihoodAnswer& a) {
  a.log_likelihood = reader.get<double>();
  a.greedy = reader.get<bool>();
}
void from_bytes(Reader& reader, std::vector<int32_t>& a) {
  a = reader.list<int32_t>();
}

class RememberingLm final : public Lm {
 public:
  RememberingLm(Lm& inner, std::vector<Digest> evaluations, AnswerLog& log)
      : inner_(inner), evaluations_(std::move(evaluations)), log_(log) {}

  int64_t context_length() const override { return inner_.context_length(); }
  std::vector<int32_t> end_ids() const override { return inner_.end_ids(); }

  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest> requests,
                                          const OnAnswer<NextTokenAnswer>& on_answer) override {
    return ask<NextTokenAnswer>(
        "next_token", requests, on_answer,
        [&](const auto& missing, const auto& told) { inner_.next_token(missing, told); });
  }
  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest> requests,
                                                  const OnAnswer<LogLikelihoodAnswer>& on_answer) override {
    return ask<LogLikelihoodAnswer>(
        "log_likelihood", requests, on_answer,
        [&](const auto& missing, const auto& told) { inner_.log_likelihood(missing, told); });
  }
  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest> requests,
                                             const OnAnswer<std::vector<int32_t>>& on_answer) override {
    return ask<std::vector<int32_t>>(
        "generate", requests, on_answer,
        [&](const auto& missing, const auto& told) { inner_.generate(missing, told); });
  }

 private:
  const Digest& evaluation_of(SubjectIndex subject) const {
    const auto at = static_cast<size_t>(subject + 1);
    QLORA_CHECK(subject >= -1 && at < evaluations_.size(), failure, "Lm: subject {} has no evaluation",
                subject);
    return evaluations_[at];
  }

  template <class Answer, class Request, class Inner>
  std::vector<Answer> ask(const char* verb, std::span<const Request> requests,
                          const OnAnswer<Answer>& on_answer, const Inner& inner) {
    std::vector<Answer> answers(requests.size());
    std::vector<Digest> digests;
    std::vector<size_t> missing;
    for (size_t i = 0; i < requests.size(); ++i) {
      digests.push_back(sha256(text_of(requests[i])));
      const std::string* known = log_.find(evaluation_of(requests[i].subject), digests[i]);
      if (known == nullptr) {
        missing.push_back(i);
        continue;
      }
      Reader reader(*known);
      from_bytes(reader, answers[i]);
      reader.end();
      if (on_answer) on_answer(i, answers[i]);
    }
    if (missing.empty()) return answers;
    AnswerSlots slots(verb, std::vector<size_t>(missing.size(), 1));
    // A fresh evaluation hands its requests on as they are: those of many subjects take much memory.
    std::vector<Request> some;
    if (missing.size() < requests.size())
      for (size_t i : missing) some.push_back(requests[i]);
    inner(some.empty() ? requests : std::span<const Request>(some),
          OnAnswer<Answer>([&](size_t n, const Answer& answer) {
            slots.fill(n);
            const size_t i = missing[n];
            answers[i] = answer;
            log_.add(evaluation_of(requests[i].subject), digests[i], to_bytes(answer));
            if (on_answer) on_answer(i, answer);
          }));
    slots.check_full();
    return answers;
  }

  Lm& inner_;
  std::vector<Digest> evaluations_;
  AnswerLog& log_;
};

}  // namespace

std::unique_ptr<Lm> make_remembering_lm(Lm& inner, std::vector<Digest> evaluations, AnswerLog& log) {
  return std::make_unique<RememberingLm>(inner, std::move(evaluations), log);
}

}  // namespace qlora
