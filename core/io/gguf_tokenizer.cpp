#include "core/io/gguf_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/names.h"

namespace qlora {
namespace {

// What a name in tokenizer.ggml.pre stands for: the steps before BPE.
struct PreTokenizer {
  const char* name;
  bool nfc;            // normalize first
  bool digits;         // every digit alone
  const char* split;   // a regex that replaces the one of GPT-2; null: GPT-2's
  bool ignore_merges;  // a word that is a token is taken as it is
  bool add_bos;        // when the file does not say
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"gpt-2", false, false, nullptr, false, false},
    {"smollm", false, true, nullptr, false, false},
    {"llama-bpe", false, false,
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     true, true},
    {"qwen2", true, false,
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     false, false},
};

// Numbers in tokenizer.ggml.token_type.
constexpr int64_t kControl = 3, kUserDefined = 4;

// Everything read from one file, checked.
struct Source {
  std::string path;
  const PreTokenizer* pre = nullptr;
  std::vector<std::string> tokens, merges;
  std::vector<int64_t> types;
  std::optional<std::string> bos, eos, pad, unk;
  bool add_bos = false, add_eos = false, prefix_space = false;
};

const PreTokenizer* find_pre_tokenizer(const GgufFile& file) {
  const std::string name = file.text("tokenizer.ggml.pre").value_or("gpt-2");
  std::vector<std::string> known;
  for (const PreTokenizer& p : kPreTokenizers) {
    if (name == p.name) return &p;
    known.emplace_back(p.name);
  }
  fail(ErrorKind::data, "{}: tokenizer.ggml.pre: {}; use the original model's tokenizer.json",
       file.path().string(), unknown_name("pre-tokenizer", name, known));
}

std::optional<std::string> special(const GgufFile& file, const std::vector<std::string>& tokens,
                                   const char* key) {
  const auto id = file.integer(key);
  if (!id) return std::nullopt;
  QLORA_CHECK(*id >= 0 && *id < static_cast<int64_t>(tokens.size()), data,
              "{}: {} is {}, but there are {} tokens", file.path().string(), key, *id, tokens.size());
  return tokens[static_cast<size_t>(*id)];
}

Source read(const GgufFile& file) {
  Source s;
  s.path = file.path().string();
  const std::string model = file.text("tokenizer.ggml.model").value_or("none");
  QLORA_CHECK(model == "gpt2", data,
              "{}: the tokenizer is of the kind `{}`; only byte-level BPE (`gpt2`) can be imported from a "
              "GGUF file: use "
              "the original model folder",
              s.path, model);
  s.pre = find_pre_tokenizer(file);
  auto tokens = file.texts("tokenizer.ggml.tokens");
  auto merges = file.texts("tokenizer.ggml.merges");
  auto types = file.integers("tokenizer.ggml.token_type");
  QLORA_CHECK(tokens && merges && types, data, "{}: no tokenizer.ggml.{}", s.path,
              !tokens   ? "tokens"
              : !merges ? "merges"
                        : "token_type");
  QLORA_CHECK(tokens->size() == types->size(), data, "{}: {} tokens, but {} token types", s.path,
              tokens->size(), types->size());
  s.tokens = std::move(*tokens);
  s.merges = std::move(*merges);
  s.types = std::move(*types);
  s.bos = special(file, s.tokens, "tokenizer.ggml.bos_token_id");
  s.eos = special(file, s.tokens, "tokenizer.ggml.eos_token_id");
  s.pad = special(file, s.tokens, "tokenizer.ggml.padding_token_id");
  s.unk = special(file, s.tokens, "tokenizer.ggml.unknown_token_id");
  s.add_bos = file.flag("tokenizer.ggml.add_bos_token").value_or(s.pre->add_bos) && s.bos;
  s.add_eos = file.flag("tokenizer.ggml.add_eos_token").value_or(false) && s.eos;
  s.prefix_space = file.flag("tokenizer.ggml.add_space_prefix").value_or(false);
  return s;
}

Json model_of(const Source& s) {
  Json vocabulary = Json::object();
  for (size_t id = 0; id < s.tokens.size(); ++id)
    QLORA_CHECK(vocabulary.emplace(s.tokens[id], id).second, data,
                "{}: the token `{}` is in the vocabulary twice", s.path, s.tokens[id]);
  Json merges = Json::array();
  for (const std::string& merge : s.merges) {
    const size_t space = merge.find(' ');
    QLORA_CHECK(space != std::string::npos && merge.find(' ', space + 1) == std::string::npos, data,
                "{}: the merge `{}` is not two tokens with a space between", s.path, merge);
    merges.push_back(Json::array({merge.substr(0, space), merge.substr(space + 1)}));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", ""},
          {"end_of_word_suffix", ""},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", s.pre->ignore_merges},
          {"vocab", std::move(vocabulary)},
          {"merges", std::move(merges)}};
}

Json added_tokens_of(const Source& s) {
  Json added = Json::array();
  for (size_t id = 0; id < s.tokens.size(); ++id)
    if (s.types[id] == kControl || s.types[id] == kUserDefined)
      added.push_back({{"id", id},
                       {"content", s.tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", s.types[id] == kControl}});
  return added;
}

Json byte_level(bool prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json pre_tokenizer_of(const Source& s) {
  Json steps = Json::array();
  if (s.pre->digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  if (s.pre->split != nullptr)
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", s.pre->split}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  steps.push_back(byte_level(s.prefix_space, s.pre->split == nullptr));
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

// BOS and EOS around a text, as far as the file wants them.
Json post_processor_of(const Source& s) {
  Json single = Json::array(), pair = Json::array(), specials = Json::object();
  auto add_special = [&](const std::string& token, int type) {
    const Json part = {{"SpecialToken", {{"id", token}, {"type_id", type}}}};
    if (type == 0) single.push_back(part);
    pair.push_back(part);
    const auto id = std::find(s.tokens.begin(), s.tokens.end(), token) - s.tokens.begin();
    specials[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
  };
  for (int type : {0, 1}) {
    if (s.add_bos) add_special(*s.bos, type);
    const Json text = {{"Sequence", {{"id", type == 0 ? "A" : "B"}, {"type_id", type}}}};
    if (type == 0) single.push_back(text);
    pair.push_back(text);
    if (s.add_eos) add_special(*s.eos, type);
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}};
}

Json config_of(const Source& s, const GgufFile& file) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"add_bos_token", s.add_bos},
                 {"add_eos_token", s.add_eos},
                 {"add_prefix_space", s.prefix_space},
                 {"clean_up_tokenization_spaces", false}};
  if (s.bos) config["bos_token"] = *s.bos;
  if (s.eos) config["eos_token"] = *s.eos;
  if (s.pad) config["pad_token"] = *s.pad;
  if (s.unk) config["unk_token"] = *s.unk;
  if (auto chat = file.text("tokenizer.chat_template")) config["chat_template"] = *chat;
  const std::string architecture = file.text("general.architecture").value_or("");
  if (auto length = file.integer(architecture + ".context_length")) config["model_max_length"] = *length;
  return config;
}

}  // namespace

TokenizerFiles tokenizer_from_gguf(const GgufFile& file) {
  const Source s = read(file);
  const Json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", added_tokens_of(s)},
                          {"normalizer", s.pre->nfc ? Json{{"type", "NFC"}} : Json(nullptr)},
                          {"pre_tokenizer", pre_tokenizer_of(s)},
                          {"post_processor", post_processor_of(s)},
                          {"decoder", byte_level(true, true)},
                          {"model", model_of(s)}};
  try {
    return {canonical(tokenizer) + "\n", config_of(s, file).dump(2) + "\n"};
  } catch (const Json::exception& e) {
    fail(ErrorKind::data, "{}: a token is not valid UTF-8: {}", s.path, e.what());
  }
}

}  // namespace qlora
