// tokenizer.json of the Hugging Face `tokenizers` library: added tokens, normalizer, pre-tokenizer, model,
// post-processor, decoder. Offsets, truncation, padding and pairs of texts are not needed here.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/text/added_tokens.h"
#include "core/text/bpe.h"
#include "core/text/decoder.h"
#include "core/text/json_read.h"
#include "core/text/normalizer.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/tokenizer_base.h"

namespace qlora {
namespace {

struct Pipeline {
  Bpe model;
  std::unique_ptr<const Normalizer> normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  Decoder decoder;
};

class JsonTokenizer final : public TokenizerBase {
 public:
  JsonTokenizer(Pipeline pipeline, SpecialTokens special, Wrap wrap, std::string file_hash)
      : TokenizerBase(special, std::move(wrap), std::move(file_hash)), p_(std::move(pipeline)) {}

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::vector<std::string> tokens;
    for (int32_t id : ids) {
      const AddedToken* added = p_.added.find(id);
      if (added != nullptr && added->special && skip_special) continue;
      const std::string& text = added != nullptr ? p_.added.form(*added) : p_.model.vocabulary().token(id);
      if (!text.empty()) tokens.push_back(text);
    }
    std::string text;
    for (const std::string& token : p_.decoder(std::move(tokens))) text += token;
    return text;
  }

  int64_t vocab_size() const override {
    return std::max(p_.model.vocabulary().size(), p_.added.largest_id() + 1);
  }
  int32_t id_of(std::string_view token) const override {
    int32_t id = p_.model.vocabulary().id_of(token);
    return id >= 0 ? id : p_.added.id_of(token);
  }
  std::string token(int32_t id) const override {
    const AddedToken* added = p_.added.find(id);
    return added != nullptr ? added->content : p_.model.vocabulary().token(id);
  }

 protected:
  void encode_text(std::string_view text, std::vector<int32_t>& ids) const override {
    p_.added.each_part(text, AddedTokens::Pass::raw, [&](const AddedToken* token, std::string_view raw) {
      if (token != nullptr) return ids.push_back(token->id);
      bool first = raw.data() == text.data();
      encode_raw(std::string(raw), first, ids);
    });
  }
  bool is_special(int32_t id) const override {
    const AddedToken* added = p_.added.find(id);
    return added != nullptr && added->special;
  }

 private:
  void encode_raw(std::string raw, bool first, std::vector<int32_t>& ids) const {
    std::string normal = p_.normalizer ? p_.normalizer->apply(std::move(raw)) : std::move(raw);
    p_.added.each_part(
        normal, AddedTokens::Pass::normalized, [&](const AddedToken* token, std::string_view part) {
          if (token != nullptr) return ids.push_back(token->id);
          PreText words{std::string(part), {{0, part.size(), first && part.data() == normal.data()}}};
          p_.pre_tokenizer(words);
          for (const Piece& word : words.pieces) p_.model.encode(words.view(word), ids);
        });
  }

  Pipeline p_;
};

// "left right", or [left, right].
Bpe::Merge read_merge(const Json& json, size_t rank, std::string_view origin) {
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    size_t space = text.find(' ');
    QLORA_CHECK(
        space != std::string::npos && text.find(' ', space + 1) == std::string::npos, data,
        "{}: merge {} is `{}`, expected two tokens with one space between them; the file is damaged: get it "
        "again from its source",
        origin, rank, text);
    return {text.substr(0, space), text.substr(space + 1)};
  }
  QLORA_CHECK(json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string(), data,
              "{}: merge {}: expected a string or a pair of strings", origin, rank);
  return {json[0].get<std::string>(), json[1].get<std::string>()};
}

Vocabulary read_vocabulary(const Json& json, std::string_view origin) {
  QLORA_CHECK(json.is_object(), data, "{}: vocab: expected an object, found {}", origin, json.type_name());
  Vocabulary vocabulary;
  for (const auto& [token, id] : json.items()) {
    QLORA_CHECK(id.is_number_integer(), data, "{}: vocab: the id of `{}` is not an integer", origin, token);
    vocabulary.add(token, id.get<int64_t>(), origin);
  }
  return vocabulary;
}

// Files older than `type` are BPE when they have merges. Dropout would make the ids of a text random.
void check_is_bpe(const Json& model, std::string_view origin) {
  std::string type = string_field_or(model, "type", model.contains("merges") ? "BPE" : "", origin);
  if (type.empty() && model.contains("unk_id")) type = "Unigram";
  QLORA_CHECK(type == "BPE", data, "{}: model type `{}` is not supported yet; supported: BPE", origin,
              type.empty() ? "(none named)" : type);
  const Json* dropout = optional_field(model, "dropout", origin);
  QLORA_CHECK(dropout == nullptr || *dropout == 0.0, data, "{}: BPE dropout is not supported; set it to null",
              origin);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    QLORA_CHECK(string_field_or(model, key, "", origin).empty(), data, "{}: {} is not supported yet", origin,
                key);
  }
}

Bpe read_model(const Json& model, std::string_view origin) {
  check_is_bpe(model, origin);
  BpeOptions options;
  options.unk_token = string_field_or(model, "unk_token", "", origin);
  options.fuse_unk = bool_field_or(model, "fuse_unk", false, origin);
  options.byte_fallback = bool_field_or(model, "byte_fallback", false, origin);
  options.ignore_merges = bool_field_or(model, "ignore_merges", false, origin);
  std::vector<Bpe::Merge> merges;
  for (const Json& merge : array_field(model, "merges", origin)) {
    merges.push_back(read_merge(merge, merges.size(), origin));
  }
  return Bpe(read_vocabulary(field(model, "vocab", origin), origin), merges, std::move(options), origin);
}

}  // namespace

std::shared_ptr<TokenizerBase> make_json_tokenizer(const Json& json, std::string file_hash,
                                                   std::string_view origin) {
  Bpe model = read_model(field(json, "model", origin), origin);
  auto normalizer = make_normalizer(optional_field(json, "normalizer", origin), origin);
  AddedTokens added(
      read_added_tokens(optional_field(json, "added_tokens", origin), model.vocabulary(), origin),
      normalizer.get());
  SpecialTokens special;
  special.unk =
      model.vocabulary().id_of(string_field_or(field(json, "model", origin), "unk_token", "", origin));
  Pipeline pipeline{std::move(model), std::move(normalizer), std::move(added),
                    make_pre_tokenizer(optional_field(json, "pre_tokenizer", origin), origin),
                    make_decoder(optional_field(json, "decoder", origin), origin)};
  return std::make_shared<JsonTokenizer>(std::move(pipeline), special,
                                         make_wrap(optional_field(json, "post_processor", origin), origin),
                                         std::move(file_hash));
}

}  // namespace qlora
