#pragma once
// For tests of MMLU: a tokenizer, a model and a tree of questions whose answers are known.

#include <functional>
#include <string>
#include <vector>

#include "core/base/test_data.h"
#include "eval/tasks/mmlu.h"
#include "eval/test_lm.h"

namespace qlora::test {

// One token per byte; the content of the model's answer is decided by the test.
class LetterTokenizer final : public Tokenizer {
 public:
  LetterTokenizer() { special_.eos = 259; }
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    // " A" at the end of a text is one token, as in real vocabularies: 256 + letter.
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool answer = i + 2 == text.size() && text[i] == ' ' && text[i + 1] >= 'A' && text[i + 1] <= 'D';
      ids.push_back(answer ? 256 + text[i + 1] - 'A' : static_cast<unsigned char>(text[i]));
      if (answer) break;
    }
    return ids;
  }
  std::string decode(std::span<const int32_t>, bool) const override { return ""; }
  int64_t vocab_size() const override { return 260; }
  const SpecialTokens& special() const override { return special_; }
  int32_t id_of(std::string_view) const override { return -1; }
  std::string token(int32_t id) const override { return std::to_string(id); }
  const std::string& content_hash() const override { return empty_; }
  const std::string& chat_template() const override { return empty_; }

 private:
  SpecialTokens special_;
  std::string empty_;
};

// Subject s always answers letter s % 4 (the base, -1, answers D).
class LetterLm final : public SilentLm {
 public:
  explicit LetterLm(int64_t context) : context_(context) {}
  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest> requests,
                                          const OnAnswer<NextTokenAnswer>&) override {
    std::vector<NextTokenAnswer> answers;
    for (const NextTokenRequest& r : requests) {
      NextTokenAnswer a{std::vector<float>(r.wanted.size(), 0.f), 2.0};
      a.logits[static_cast<size_t>((r.subject + 4) % 4)] = 1.f;
      a.likeliest = r.wanted[static_cast<size_t>((r.subject + 4) % 4)];
      if (!r.continuation.empty()) a.log_likelihood = -static_cast<double>(r.continuation.front() - 63);
      answers.push_back(a);
      asked.push_back(r);
    }
    return answers;
  }
  int64_t context_length() const override { return context_; }
  std::vector<NextTokenRequest> asked;

 private:
  int64_t context_;
};

// Two subjects; the answers of the test rows are A, B, C and A.
inline void write_tree(const Path& dir) {
  std::filesystem::create_directories(dir / "dev");
  std::filesystem::create_directories(dir / "test");
  std::string dev;
  for (int i = 0; i < 5; ++i) dev += fmt::format("dev question {},w,x,y,z,D\n", i);
  for (const char* s : {"high_school_biology", "astronomy"})
    write_file(dir / "dev" / fmt::format("{}_dev.csv", s), dev);
  write_file(dir / "test/high_school_biology_test.csv",
             "\"one, \"\"1\"\"\",0.50,None,c,d,A\nq2,a,b,c,d,B\nq3,a,b,c,d,C\n");
  write_file(dir / "test/astronomy_test.csv", "q,a,b,c,d,A\n");
}

}  // namespace qlora::test
