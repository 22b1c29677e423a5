#pragma once
// For tests of this level: a tokenizer that needs no file, and how to expect a message.

#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/text/tokenizer.h"

namespace qlora::test {

// One token a byte (id 3 + byte); BOS 1 and EOS 2 unless told that there are none.
class ByteTokenizer final : public Tokenizer {
 public:
  explicit ByteTokenizer(bool with_special = true) {
    if (with_special) special_ = {.bos = 1, .eos = 2, .pad = 0, .unk = -1, .add_bos = true, .add_eos = true};
  }
  std::vector<int32_t> encode(std::string_view text, bool with_special) const override {
    std::vector<int32_t> ids;
    if (with_special && special_.bos >= 0) ids.push_back(special_.bos);
    for (unsigned char c : text) ids.push_back(3 + c);
    if (with_special && special_.eos >= 0) ids.push_back(special_.eos);
    return ids;
  }
  std::string decode(std::span<const int32_t> ids, bool) const override {
    std::string text;
    for (int32_t id : ids) text += id >= 3 ? static_cast<char>(id - 3) : id == 1 ? '<' : '>';
    return text;
  }
  int64_t vocab_size() const override { return 259; }
  const SpecialTokens& special() const override { return special_; }
  int32_t id_of(std::string_view) const override { return -1; }
  std::string token(int32_t) const override { return {}; }
  const std::string& content_hash() const override { return none_; }
  const std::string& chat_template() const override { return none_; }

 private:
  SpecialTokens special_;
  std::string none_;
};

// Runs `body`, which must throw Error(kind) with every part in its message.
template <class Body>
void expect_error(ErrorKind kind, const std::vector<std::string>& parts, Body body) {
  try {
    body();
    FAIL("no error was thrown");
  } catch (const Error& e) {
    CHECK(e.kind() == kind);
    for (const std::string& part : parts) CHECK_THAT(std::string(e.what()), Catch::Contains(part));
  }
}

}  // namespace qlora::test
