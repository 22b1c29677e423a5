#pragma once
// Text to token ids and back. Const once loaded and shared freely between threads.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"

namespace qlora {

struct SpecialTokens {
  int32_t bos = -1, eos = -1, pad = -1, unk = -1;  // -1: none
  bool add_bos = false, add_eos = false;           // what the tokenizer's own file adds around a text
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // with_special: adds what the tokenizer's own file adds (BOS, EOS, a template). Special strings inside the
  // text are parsed as the format's own library does by default. Throws Error(data) for a text that is not
  // UTF-8.
  virtual std::vector<int32_t> encode(std::string_view text, bool with_special) const = 0;
  // skip_special: special tokens give no text.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special) const = 0;
  virtual int64_t vocab_size() const = 0;  // one more than the largest id
  virtual const SpecialTokens& special() const = 0;
  virtual int32_t id_of(std::string_view token) const = 0;  // -1 when unknown
  virtual std::string token(int32_t id) const = 0;          // as stored; empty when unknown
  // SHA-256 of what decides ids: the content of the tokenizer's file, the special tokens, the chat template.
  virtual const std::string& content_hash() const = 0;
  // The chat template's text as the folder has it (tokenizer_config.json, chat_template.jinja); empty when
  // none.
  virtual const std::string& chat_template() const = 0;
};

// From a model folder: tokenizer.json, else tokenizer.model, else vocab.json and merges.txt; with
// tokenizer_config.json, special_tokens_map.json and chat_template.jinja beside it, where they exist.
// add_bos_token and add_eos_token in the configuration override what the tokenizer's own file adds. Where none
// of these files names BOS or EOS, config.json's bos_token_id and eos_token_id do, if they are special tokens.
// Throws Error(data) when the folder has no tokenizer, saying so.
std::shared_ptr<const Tokenizer> load_tokenizer(const Path& folder);
// From one file, told by its content: tokenizer.json (also .gz), a SentencePiece model, or a vocabulary
// (vocab.json) with its merges.txt beside it.
std::shared_ptr<const Tokenizer> load_tokenizer_file(const Path& file);

// Decodes a growing answer piece by piece, special tokens left out: text appears once its UTF-8 is complete.
// The pieces and finish(), joined, are the text of all ids. Each step decodes a short window, so that its
// cost does not grow.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& t) : tokenizer_(t) {}
  std::string push(int32_t id);  // the new text, maybe empty
  std::string finish();          // what was held back, when no more ids will come

 private:
  std::string advance(bool to_the_end);
  const Tokenizer& tokenizer_;
  std::vector<int32_t>
      ids_;           // the window: the ids of the last piece that was shown, then those not shown yet
  size_t shown_ = 0;  // how many of them are shown
};

}  // namespace qlora
