#include "core/text/added_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/text/json_read.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

// Where the last character of `text` begins. REQUIRES: not empty.
size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t at = last_character(text);
  return is_word(next_code_point(text, at));
}

bool starts_with_word(std::string_view text) {
  size_t at = 0;
  return !text.empty() && is_word(next_code_point(text, at));
}

// Bytes of white space at the front, and where the white space at the end begins.
size_t leading_space(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size() && is_white_space(next_code_point(text, at));) end = at;
  return end;
}
size_t trailing_space(std::string_view text) {
  while (!text.empty()) {
    size_t begin = last_character(text), at = begin;
    if (!is_white_space(next_code_point(text, at))) break;
    text = text.substr(0, begin);
  }
  return text.size();
}

}  // namespace

std::vector<AddedToken> read_added_tokens(const Json* json, const Vocabulary& model,
                                          std::string_view origin) {
  std::vector<AddedToken> tokens;
  if (json == nullptr) return tokens;
  QLORA_CHECK(json->is_array(), data, "{}: added_tokens: expected a list, found {}", origin,
              json->type_name());
  for (const Json& entry : *json) {
    AddedToken t;
    t.content = string_field(entry, "content", origin);
    if (t.content.empty()) continue;
    int32_t known = model.id_of(t.content);
    int64_t id = known >= 0 ? known : int_field(entry, "id", origin);
    QLORA_CHECK(id >= 0 && id < (int64_t{1} << 24), data, "{}: added token `{}` has the id {}", origin,
                t.content, id);
    t.id = static_cast<int32_t>(id);
    t.special = bool_field_or(entry, "special", false, origin);
    t.normalized = bool_field_or(entry, "normalized", !t.special, origin);
    t.lstrip = bool_field_or(entry, "lstrip", false, origin);
    t.rstrip = bool_field_or(entry, "rstrip", false, origin);
    t.single_word = bool_field_or(entry, "single_word", false, origin);
    tokens.push_back(std::move(t));
  }
  return tokens;
}

size_t StringSet::child(size_t node, char c) const {
  for (const auto& [key, next] : nodes_[node].next) {
    if (key == c) return next;
  }
  return kNone;
}

void StringSet::add(std::string_view text, size_t value) {
  size_t node = 0;
  for (char c : text) {
    size_t next = child(node, c);
    if (next == kNone) {
      next = nodes_.size();
      nodes_[node].next.emplace_back(c, next);
      nodes_.emplace_back();
    }
    node = next;
  }
  nodes_[node].value = value;
}

size_t StringSet::match(std::string_view text, size_t at, size_t& value) const {
  size_t length = 0, node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    node = child(node, text[i]);
    if (node == kNone) break;
    if (nodes_[node].value == kNone) continue;
    value = nodes_[node].value;
    length = i + 1 - at;
  }
  return length;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) by_id_[tokens_[i].id] = i;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& t = tokens_[i];
    forms_.push_back(t.normalized && normalizer != nullptr ? normalizer->apply(t.content) : t.content);
    if (by_id_[t.id] == i && !forms_[i].empty()) (t.normalized ? normalized_ : raw_).add(forms_[i], i);
  }
}

void AddedTokens::each_part(std::string_view text, Pass pass,
                            const std::function<void(const AddedToken*, std::string_view)>& part) const {
  const StringSet& set = pass == Pass::raw ? raw_ : normalized_;
  size_t done = 0;
  for (size_t at = 0; at < text.size() && !set.empty();) {
    size_t index = 0;
    size_t begin = at, end = at + set.match(text, at, index);
    if (end == begin) {
      ++at;
      continue;
    }
    at = end;
    const AddedToken& token = tokens_[index];
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (token.lstrip) begin = std::max(trailing_space(text.substr(0, begin)), done);
    if (token.rstrip) end += leading_space(text.substr(end));
    if (done < begin) part(nullptr, text.substr(done, begin - done));
    part(&token, text.substr(begin, end - begin));
    done = end;
  }
  if (done < text.size()) part(nullptr, text.substr(done));
}

const AddedToken* AddedTokens::find(int32_t id) const {
  auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

int32_t AddedTokens::id_of(std::string_view content) const {
  for (const AddedToken& t : tokens_) {
    if (t.content == content) return t.id;
  }
  return -1;
}

const std::string& AddedTokens::form(const AddedToken& t) const {
  return forms_[index_of(t)];
}

int64_t AddedTokens::largest_id() const {
  int64_t largest = -1;
  for (const AddedToken& t : tokens_) largest = std::max<int64_t>(largest, t.id);
  return largest;
}

}  // namespace qlora
