#include "core/text/bpe.h"

#include <fmt/format.h>

#include <array>
#include <queue>

#include "core/base/check.h"
#include "core/text/utf8.h"
#include "core/text/word_cache.h"

namespace qlora {
namespace {

// What a pair of neighbouring symbols becomes; rank < 0: nothing.
struct Merged {
  int32_t rank = -1, id = -1;
};

// (left, right) -> Merged. Open addressing at no more than half full.
class MergeTable {
 public:
  explicit MergeTable(size_t merges) {
    size_t slots = 16;
    while (slots < 2 * merges) slots *= 2;
    slots_.resize(slots);
  }
  void set(int32_t left, int32_t right, Merged merged) {
    Slot& slot = slots_[slot_of(left, right)];
    slot = {key_of(left, right), merged};
  }
  Merged find(int32_t left, int32_t right) const { return slots_[slot_of(left, right)].merged; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merged merged;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  size_t slot_of(int32_t left, int32_t right) const {
    uint64_t key = key_of(left, right);
    size_t mask = slots_.size() - 1;
    size_t at = static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask;
    return at;
  }
  std::vector<Slot> slots_;
};

// A symbol of a word, in a doubly linked list; id -1: merged into its left neighbour.
struct Symbol {
  int32_t id, previous, next;
};

struct Candidate {
  int32_t rank, position, id;
  bool operator>(const Candidate& o) const { return rank != o.rank ? rank > o.rank : position > o.position; }
};

using CandidateQueue = std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;

}  // namespace

struct Bpe::Impl {
  Impl(Vocabulary v, size_t merge_count, BpeOptions o)
      : vocabulary(std::move(v)), options(std::move(o)), merges(merge_count) {}

  void first_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  bool append_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  void merge_all(std::vector<int32_t>& ids, size_t begin) const;

  Vocabulary vocabulary;
  BpeOptions options;
  MergeTable merges;
  std::array<int32_t, 256> byte_ids{};
  int32_t unk = -1;
  mutable WordCache cache;
};

bool Bpe::Impl::append_bytes(std::string_view character, std::vector<int32_t>& ids) const {
  for (char c : character) {
    if (byte_ids[static_cast<uint8_t>(c)] < 0) return false;
  }
  for (char c : character) ids.push_back(byte_ids[static_cast<uint8_t>(c)]);
  return true;
}

// An unknown token waits until the next known character, so that fuse_unk can lengthen it; bytes do not end
// the wait (as in `tokenizers`).
void Bpe::Impl::first_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  bool waiting = false;
  for (size_t at = 0; at < word.size();) {
    size_t begin = at;
    next_code_point(word, at);
    std::string_view character = word.substr(begin, at - begin);
    if (int32_t id = vocabulary.id_of(character); id >= 0) {
      if (waiting) ids.push_back(unk);
      waiting = false;
      ids.push_back(id);
    } else if (options.byte_fallback && append_bytes(character, ids)) {
      continue;
    } else if (unk >= 0) {
      if (waiting && !options.fuse_unk) ids.push_back(unk);
      waiting = true;
    }
  }
  if (waiting) ids.push_back(unk);
}

void Bpe::Impl::merge_all(std::vector<int32_t>& ids, size_t begin) const {
  auto count = static_cast<int32_t>(ids.size() - begin);
  if (count < 2) return;
  std::vector<Symbol> symbols(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {ids[begin + static_cast<size_t>(i)], i - 1,
                                       i + 1 < count ? i + 1 : -1};
  }
  auto symbol = [&](int32_t i) -> Symbol& { return symbols[static_cast<size_t>(i)]; };
  CandidateQueue queue;
  auto offer = [&](int32_t left) {
    if (left < 0 || symbol(left).next < 0) return;
    Merged merged = merges.find(symbol(left).id, symbol(symbol(left).next).id);
    if (merged.rank >= 0) queue.push({merged.rank, left, merged.id});
  };
  for (int32_t i = 0; i + 1 < count; ++i) offer(i);
  while (!queue.empty()) {
    Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbol(best.position);
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbol(left.next);
    if (merges.find(left.id, right.id).id != best.id) continue;  // one of the two has changed since
    left.id = best.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbol(left.next).previous = best.position;
    offer(left.previous);
    offer(best.position);
  }
  ids.resize(begin);
  for (int32_t i = 0; i >= 0; i = symbol(i).next) ids.push_back(symbol(i).id);
}

Bpe::Bpe(Vocabulary vocabulary, std::span<const Merge> merges, BpeOptions options, std::string_view origin)
    : impl_(std::make_unique<Impl>(std::move(vocabulary), merges.size(), std::move(options))) {
  const Vocabulary& words = impl_->vocabulary;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    auto need = [&](const std::string& token) {
      int32_t id = words.id_of(token);
      QLORA_CHECK(
          id >= 0, data,
          "{}: merge {} is `{}` + `{}`, but `{}` is not in the vocabulary; the file is damaged (a character "
          "may have been changed on its way): get it again from its source",
          origin, rank, left, right, token);
      return id;
    };
    int32_t left_id = need(left), right_id = need(right);
    impl_->merges.set(left_id, right_id, {static_cast<int32_t>(rank), need(left + right)});
  }
  const std::string& unk = impl_->options.unk_token;
  if (!unk.empty()) {
    impl_->unk = words.id_of(unk);
    QLORA_CHECK(impl_->unk >= 0, data, "{}: the unk_token `{}` is not in the vocabulary", origin, unk);
  }
  for (size_t b = 0; b < 256; ++b) impl_->byte_ids[b] = words.id_of(fmt::format("<0x{:02X}>", b));
}
Bpe::~Bpe() = default;
Bpe::Bpe(Bpe&&) noexcept = default;
Bpe& Bpe::operator=(Bpe&&) noexcept = default;

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (impl_->options.ignore_merges) {
    if (int32_t id = impl_->vocabulary.id_of(word); id >= 0) return ids.push_back(id);
  }
  bool cached = word.size() <= WordCache::kLongestWord;
  if (cached && impl_->cache.find(word, ids)) return;
  size_t begin = ids.size();
  impl_->first_symbols(word, ids);
  impl_->merge_all(ids, begin);
  if (cached) impl_->cache.insert(word, ids.data() + begin, ids.size() - begin);
}

const Vocabulary& Bpe::vocabulary() const {
  return impl_->vocabulary;
}

}  // namespace qlora
