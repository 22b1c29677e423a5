#include "core/text/tokenizer_base.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/text/json_read.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

// A token is given as a string, or as an object with its content.
void read_token(const Json& json, const char* key, std::optional<std::string>& token,
                const std::string& origin) {
  const Json* value = optional_field(json, key, origin);
  if (value == nullptr || token.has_value()) return;
  token = value->is_string() ? value->get<std::string>() : string_field(*value, "content", origin);
}

// A string, or a list of {name, template} of which `default` counts.
std::string read_chat_template(const Json& json, const std::string& origin) {
  const Json* value = optional_field(json, "chat_template", origin);
  if (value == nullptr) return {};
  if (value->is_string()) return value->get<std::string>();
  QLORA_CHECK(value->is_array(), data, "{}: chat_template: expected a string or a list, found {}", origin,
              value->type_name());
  for (const Json& entry : *value) {
    if (string_field(entry, "name", origin) == "default") return string_field(entry, "template", origin);
  }
  fail(ErrorKind::data, "{}: chat_template is a list without one named `default`", origin);
}

void read_tokens(const Json& json, TokenizerConfig& config, const std::string& origin) {
  read_token(json, "bos_token", config.bos, origin);
  read_token(json, "eos_token", config.eos, origin);
  read_token(json, "pad_token", config.pad, origin);
  read_token(json, "unk_token", config.unk, origin);
}

// An id of the model, or a list of them of which the first counts.
std::optional<int64_t> read_id(const Json& json, const char* key, const std::string& origin) {
  const Json* value = optional_field(json, key, origin);
  if (value != nullptr && value->is_array()) value = value->empty() ? nullptr : &value->front();
  if (value == nullptr) return std::nullopt;
  QLORA_CHECK(value->is_number_integer(), data, "{}: {}: expected a token id, found {}", origin, key,
              value->dump());
  return value->get<int64_t>();
}

void read_model_ids(const Path& file, TokenizerConfig& config) {
  if (!std::filesystem::exists(file)) return;
  Json json = parse_json(read_file(file), file.string());
  config.model_bos = read_id(json, "bos_token_id", file.string());
  config.model_eos = read_id(json, "eos_token_id", file.string());
}

std::optional<bool> read_flag(const Json& json, const char* key, const std::string& origin) {
  if (optional_field(json, key, origin) == nullptr) return std::nullopt;
  return bool_field_or(json, key, false, origin);
}

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

TokenizerConfig read_tokenizer_config(const Path& folder) {
  TokenizerConfig config;
  Path main = folder / "tokenizer_config.json", map = folder / "special_tokens_map.json";
  config.origin = main.string();
  if (std::filesystem::exists(main)) {
    Json json = parse_json(read_file(main), main.string());
    read_tokens(json, config, main.string());
    config.add_bos = read_flag(json, "add_bos_token", main.string());
    config.add_eos = read_flag(json, "add_eos_token", main.string());
    config.chat_template = read_chat_template(json, main.string());
  }
  if (std::filesystem::exists(map))
    read_tokens(parse_json(read_file(map), map.string()), config, map.string());
  if (!config.bos && !config.eos) read_model_ids(folder / "config.json", config);
  Path jinja = folder / "chat_template.jinja";  // newer folders; counts before the configuration
  if (std::filesystem::exists(jinja)) config.chat_template = read_file(jinja);
  return config;
}

TokenizerBase::TokenizerBase(SpecialTokens special, Wrap wrap, std::string file_hash)
    : special_(special), wrap_(std::move(wrap)), file_hash_(std::move(file_hash)) {
  if (special_.bos < 0 && !wrap_.before.empty()) special_.bos = wrap_.before.front();
  if (special_.eos < 0 && !wrap_.after.empty()) special_.eos = wrap_.after.back();
  finish();
}

std::vector<int32_t> TokenizerBase::encode(std::string_view text, bool with_special) const {
  size_t bad = invalid_utf8(text);
  QLORA_CHECK(bad == text.size(), data, "cannot tokenize a text that is not UTF-8: byte {} is 0x{:02x}", bad,
              static_cast<unsigned>(static_cast<uint8_t>(text[bad])));
  std::vector<int32_t> ids;
  if (with_special) ids = wrap_.before;
  encode_text(text, ids);
  if (with_special) ids.insert(ids.end(), wrap_.after.begin(), wrap_.after.end());
  return ids;
}

void TokenizerBase::name_special(const std::optional<std::string>& token, const char* role, int32_t& id,
                                 const std::string& origin) {
  if (!token.has_value()) return;
  id = id_of(*token);
  QLORA_CHECK(id >= 0, data, "{}: {} is `{}`, which is not a token of the tokenizer beside it", origin, role,
              *token);
}

void TokenizerBase::adopt_model_ids(const TokenizerConfig& config) {
  if (special_.bos >= 0 || special_.eos >= 0) return;
  auto adopt = [&](const std::optional<int64_t>& id, int32_t& role) {
    if (id && *id >= 0 && *id < vocab_size() && is_special(static_cast<int32_t>(*id)))
      role = static_cast<int32_t>(*id);
  };
  adopt(config.model_bos, special_.bos);
  adopt(config.model_eos, special_.eos);
}

void TokenizerBase::configure(const TokenizerConfig& config) {
  name_special(config.bos, "bos_token", special_.bos, config.origin);
  name_special(config.eos, "eos_token", special_.eos, config.origin);
  name_special(config.pad, "pad_token", special_.pad, config.origin);
  name_special(config.unk, "unk_token", special_.unk, config.origin);
  adopt_model_ids(config);
  auto set = [](std::vector<int32_t>& ids, int32_t id, bool front, const std::optional<bool>& wanted) {
    if (!wanted.has_value() || id < 0) return;
    if (!*wanted) std::erase(ids, id);
    if (*wanted && !contains(ids, id)) ids.insert(front ? ids.begin() : ids.end(), id);
  };
  set(wrap_.before, special_.bos, true, config.add_bos);
  set(wrap_.after, special_.eos, false, config.add_eos);
  chat_template_ = config.chat_template;
  finish();
}

void TokenizerBase::finish() {
  special_.add_bos = special_.bos >= 0 && contains(wrap_.before, special_.bos);
  special_.add_eos = special_.eos >= 0 && contains(wrap_.after, special_.eos);
  Json parts = {{"file", file_hash_},   {"before", wrap_.before},
                {"after", wrap_.after}, {"bos", special_.bos},
                {"eos", special_.eos},  {"pad", special_.pad},
                {"unk", special_.unk},  {"chat_template", chat_template_}};
  content_hash_ = hex(sha256(canonical(parts)));
}

}  // namespace qlora
