#include "core/text/word_cache.h"

namespace qlora {

bool WordCache::find(std::string_view word, std::vector<int32_t>& ids) const {
  const Shard& shard = shards_[shard_of(word)];
  std::lock_guard lock(shard.mutex);
  auto found = shard.words.find(word);
  if (found == shard.words.end()) return false;
  ids.insert(ids.end(), found->second.begin(), found->second.end());
  return true;
}

void WordCache::insert(std::string_view word, const int32_t* ids, size_t count) {
  Shard& shard = shards_[shard_of(word)];
  std::lock_guard lock(shard.mutex);
  if (shard.words.size() >= kWordsPerShard) return;
  shard.words.emplace(word, std::vector<int32_t>(ids, ids + count));
}

}  // namespace qlora
