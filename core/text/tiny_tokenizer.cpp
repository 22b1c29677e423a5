#include "core/text/tiny_tokenizer.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/base/json.h"
#include "core/text/byte_level.h"
#include "core/text/utf8.h"

namespace qlora::test {
namespace {

constexpr const char* kSpecial[] = {"<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>"};

// "_" stands for the character of the space.
constexpr std::pair<const char*, const char*> kMerges[] = {
    {"_", "t"},  {"h", "e"}, {"_", "a"},   {"i", "n"},  {"r", "e"},  {"_t", "he"}, {"o", "n"},
    {"e", "r"},  {"_", "s"}, {"a", "t"},   {"_", "w"},  {"o", "r"},  {"e", "n"},   {"i", "s"},
    {"_", "o"},  {"_", "c"}, {"i", "t"},   {"o", "u"},  {"_", "b"},  {"e", "s"},   {"in", "g"},
    {"_a", "n"}, {"a", "n"}, {"_an", "d"}, {"_", "is"}, {"_o", "f"}, {"_t", "o"},
};

std::string spelled(const std::string& part) {
  return part.starts_with('_') ? to_utf8(byte_to_character(' ')) + part.substr(1) : part;
}

Json bos_template() {
  Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  Json bos = {{"SpecialToken", {{"id", kSpecial[0]}, {"type_id", 0}}}};
  Json ids = {{"id", kSpecial[0]}, {"ids", {TinyTokenizer::kBos}}, {"tokens", {kSpecial[0]}}};
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({bos, text})},
          {"pair", Json::array({bos, text})},
          {"special_tokens", {{kSpecial[0], ids}}}};
}

Json model() {
  Json vocab = Json::object(), merges = Json::array();
  int64_t next = 0;
  for (const char* token : kSpecial) vocab[token] = next++;
  for (int b = 0; b < 256; ++b) vocab[to_utf8(byte_to_character(static_cast<uint8_t>(b)))] = next++;
  for (const auto& [left, right] : kMerges) {
    merges.push_back(Json::array({spelled(left), spelled(right)}));
    vocab[spelled(left) + spelled(right)] = next++;
  }
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

}  // namespace

void write_tiny_tokenizer(const Path& folder, bool add_bos) {
  Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  Json added = Json::array();
  for (int64_t id = 0; const char* token : kSpecial) {
    added.push_back({{"id", id++}, {"content", token}, {"special", true}, {"normalized", false}});
  }
  Json tokenizer = {{"version", "1.0"},      {"added_tokens", added},
                    {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
                    {"decoder", byte_level}, {"post_processor", byte_level},
                    {"model", model()}};
  if (add_bos) tokenizer["post_processor"] = bos_template();
  Json config = {
      {"bos_token", kSpecial[0]},
      {"eos_token", kSpecial[1]},
      {"pad_token", kSpecial[2]},
      {"chat_template",
       "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
       "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
       "{% endif %}"}};
  write_file(folder / "tokenizer.json", tokenizer.dump());
  write_file(folder / "tokenizer_config.json", config.dump());
}

}  // namespace qlora::test
