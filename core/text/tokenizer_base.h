#pragma once
// What all kinds of tokenizers share: the ids around a text, and what the files beside them say.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"
#include "core/text/wrap.h"

namespace qlora {

// What tokenizer_config.json (or special_tokens_map.json) and chat_template.jinja say.
struct TokenizerConfig {
  std::optional<std::string> bos, eos, pad, unk;  // token strings
  std::optional<int64_t> model_bos, model_eos;    // config.json's ids; read where bos and eos have no string
  std::optional<bool> add_bos, add_eos;           // override what the tokenizer's own file adds
  std::string chat_template;
  std::string origin;  // for messages
};

// Reads the files of a model folder; those that are absent say nothing. Throws Error(data).
TokenizerConfig read_tokenizer_config(const Path& folder);

class TokenizerBase : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool with_special) const final;
  const SpecialTokens& special() const final { return special_; }
  const std::string& content_hash() const final { return content_hash_; }
  const std::string& chat_template() const final { return chat_template_; }

  // Once, before the tokenizer is shared: special tokens by name, BOS and EOS added or not, the content hash.
  // Where neither BOS nor EOS is known (GPT-2's own folder), those of the model's ids that are special tokens
  // count; where one is known, the other is none by intent (Qwen's BOS).
  // Throws Error(data) for a special token that the vocabulary lacks.
  void configure(const TokenizerConfig& config);

 protected:
  // file_hash: SHA-256 of the tokenizer's own file.
  TokenizerBase(SpecialTokens special, Wrap wrap, std::string file_hash);
  // Appends the ids of a text, nothing around it. `text` is valid UTF-8.
  virtual void encode_text(std::string_view text, std::vector<int32_t>& ids) const = 0;
  // Whether the id is a token that gives no text when special tokens are skipped.
  virtual bool is_special(int32_t id) const = 0;

 private:
  void name_special(const std::optional<std::string>& token, const char* role, int32_t& id,
                    const std::string& origin);
  void adopt_model_ids(const TokenizerConfig& config);
  void finish();
  SpecialTokens special_;
  Wrap wrap_;
  std::string file_hash_, content_hash_, chat_template_;
};

// The kinds. Throw Error(data) naming `origin`.
std::shared_ptr<TokenizerBase> make_json_tokenizer(const Json& json, std::string file_hash,
                                                   std::string_view origin);
std::shared_ptr<TokenizerBase> make_sentencepiece_tokenizer(const std::string& model,
                                                            std::string_view origin);
// GPT-2's files (vocab.json, merges.txt) as the tokenizer.json that they amount to.
Json json_from_vocab_and_merges(const Json& vocab, std::string_view merges, std::string_view origin);

}  // namespace qlora
