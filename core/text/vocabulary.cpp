#include "core/text/vocabulary.h"

#include "core/base/check.h"

namespace qlora {
namespace {

constexpr int64_t kMostIds = int64_t{1} << 24;
const std::string kNothing;

}  // namespace

void Vocabulary::add(std::string_view token, int64_t id, std::string_view origin) {
  QLORA_CHECK(id >= 0 && id < kMostIds, data, "{}: token `{}` has the id {}, expected 0 to {}", origin, token,
              id, kMostIds - 1);
  auto index = static_cast<size_t>(id);
  if (index >= tokens_.size()) tokens_.resize(index + 1, nullptr);
  QLORA_CHECK(tokens_[index] == nullptr || *tokens_[index] == token, data,
              "{}: the id {} belongs to two tokens, `{}` and `{}`", origin, id, *tokens_[index], token);
  auto [entry, added] = ids_.emplace(token, static_cast<int32_t>(id));
  QLORA_CHECK(added || entry->second == id, data, "{}: token `{}` has two ids, {} and {}", origin, token,
              entry->second, id);
  tokens_[index] = &entry->first;
}

int32_t Vocabulary::id_of(std::string_view token) const {
  auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

const std::string& Vocabulary::token(int32_t id) const {
  if (id < 0 || id >= size() || tokens_[static_cast<size_t>(id)] == nullptr) return kNothing;
  return *tokens_[static_cast<size_t>(id)];
}

}  // namespace qlora
