#pragma once
// Tokens and their ids, both ways.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qlora {

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;
  // Throws Error(data) naming `origin` for a negative id, one above 2^24, or one that is taken by another
  // token.
  void add(std::string_view token, int64_t id, std::string_view origin);
  int32_t id_of(std::string_view token) const;                           // -1 when unknown
  const std::string& token(int32_t id) const;                            // empty when unknown
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }  // one more than the largest id

 private:
  std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // keys of ids_; null for a hole
};

}  // namespace qlora
