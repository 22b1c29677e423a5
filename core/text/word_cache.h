#pragma once
// A bounded map from words to their ids, shared between threads.

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/vocabulary.h"

namespace qlora {

class WordCache {
 public:
  static constexpr size_t kLongestWord = 64;  // bytes; longer words rarely come twice

  // Appends the ids and says true when the word is known.
  bool find(std::string_view word, std::vector<int32_t>& ids) const;
  // Remembers a word while there is room.
  void insert(std::string_view word, const int32_t* ids, size_t count);

 private:
  static constexpr size_t kShards = 64, kWordsPerShard = 2048;
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<std::string, std::vector<int32_t>, TextHash, std::equal_to<>> words;
  };
  static size_t shard_of(std::string_view word) { return (TextHash()(word) >> 20) % kShards; }
  std::array<Shard, kShards> shards_;
};

}  // namespace qlora
