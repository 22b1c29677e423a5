#pragma once
// Byte-pair encoding (Sennrich et al., 2016, arXiv:1508.07909) as `tokenizers` runs it: the characters of a
// word are its first symbols; the neighbouring pair with the lowest rank is merged (the leftmost one of
// equals) until no neighbouring pair has a rank.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/text/vocabulary.h"

namespace qlora {

struct BpeOptions {
  std::string unk_token;       // for characters that the vocabulary lacks; empty: they vanish
  bool fuse_unk = false;       // neighbouring unknown characters become one token
  bool byte_fallback = false;  // before that, a character's bytes as <0x00> to <0xFF>, if all are there
  bool ignore_merges = false;  // a word that is a token is taken whole
};

class Bpe {
 public:
  using Merge = std::pair<std::string, std::string>;
  // Merges in the order of their ranks. Throws Error(data) naming `origin` and the merge when a part, or the
  // whole, is not in the vocabulary.
  Bpe(Vocabulary vocabulary, std::span<const Merge> merges, BpeOptions options, std::string_view origin);
  ~Bpe();
  Bpe(Bpe&&) noexcept;
  Bpe& operator=(Bpe&&) noexcept;

  // Appends the ids of a word. REQUIRES: valid UTF-8. Const, and safe from several threads (a cache of short
  // words is shared; it changes the speed alone).
  void encode(std::string_view word, std::vector<int32_t>& ids) const;
  const Vocabulary& vocabulary() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qlora
