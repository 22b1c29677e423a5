#pragma once
// The `added_tokens` of a tokenizer.json: strings that are taken out of a text whole, before the model sees
// it.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/json.h"
#include "core/text/normalizer.h"
#include "core/text/vocabulary.h"

namespace qlora {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool special = false;      // gives no text when special tokens are skipped
  bool normalized = false;   // searched for in the normalized text, in its own normalized form
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
  bool single_word = false;  // only where no word character touches it
};

// `added_tokens` of a tokenizer.json (null: none). Where the model knows a token, the model's id counts.
std::vector<AddedToken> read_added_tokens(const Json* json, const Vocabulary& model, std::string_view origin);

// Leftmost-longest search for a set of strings.
class StringSet {
 public:
  void add(std::string_view text, size_t value);  // REQUIRES: not empty
  // The longest member at `at`: its length, and its value; 0 when there is none.
  size_t match(std::string_view text, size_t at, size_t& value) const;
  bool empty() const { return nodes_.size() == 1; }

 private:
  static constexpr size_t kNone = ~size_t{0};
  struct Node {
    size_t value = kNone;
    std::vector<std::pair<char, size_t>> next;
  };
  size_t child(size_t node, char c) const;
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

class AddedTokens {
 public:
  // The normalizer (or null) gives the forms of the `normalized` tokens. Of two tokens of one id the later
  // counts.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer);

  // Which of the two passes over a text: first the raw text, then the normalized text of what was left.
  enum class Pass { raw, normalized };
  // Calls part(token or null, piece) for the tokens found and for what lies between them, in order.
  void each_part(std::string_view text, Pass pass,
                 const std::function<void(const AddedToken*, std::string_view)>& part) const;

  const AddedToken* find(int32_t id) const;  // null when unknown
  int32_t id_of(std::string_view content) const;
  // What the decoder is given for a token: the form that was searched for.
  const std::string& form(const AddedToken&) const;
  int64_t largest_id() const;

 private:
  size_t index_of(const AddedToken& t) const { return static_cast<size_t>(&t - tokens_.data()); }
  std::vector<AddedToken> tokens_;
  std::vector<std::string> forms_;  // like tokens_
  std::unordered_map<int32_t, size_t> by_id_;
  StringSet raw_, normalized_;
};

}  // namespace qlora
