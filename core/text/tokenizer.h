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
  bool add_bos = false, add_eos = false;  // what the tokenizer's own file adds around a text
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // with_special: adds what the tokenizer's own file adds (BOS, EOS, a template). Special strings inside the text are
  // parsed as the format's own library does by default.
  virtual std::vector<int32_t> encode(std::string_view text, bool with_special) const = 0;
  // skip_special: special tokens give no text.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual const SpecialTokens& special() const = 0;
  virtual int32_t id_of(std::string_view token) const = 0;  // -1 when unknown
  virtual std::string token(int32_t id) const = 0;          // as stored; empty when unknown
  // SHA-256 of what decides ids: the content of the tokenizer's files.
  virtual const std::string& content_hash() const = 0;
  // The chat template's text as the folder has it (tokenizer_config.json, chat_template.jinja); empty when none.
  virtual const std::string& chat_template() const = 0;
};

// From a model folder: tokenizer.json, else tokenizer.model, with tokenizer_config.json beside it.
// Throws Error(data) when the folder has neither, saying so.
std::shared_ptr<const Tokenizer> load_tokenizer(const Path& folder);
// From one file: *.json(.gz) or *.model.
std::shared_ptr<const Tokenizer> load_tokenizer_file(const Path& file);

// Decodes a growing answer piece by piece: text appears once its UTF-8 is complete.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& t) : tokenizer_(t) {}
  std::string push(int32_t id);  // the new text, maybe empty

 private:
  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  size_t shown_ = 0;
};

}  // namespace qlora
