// GPT-2's own files: vocab.json and merges.txt.

#include <nlohmann/json.hpp>
#include <string>

#include "core/base/check.h"
#include "core/text/tokenizer_base.h"

namespace qlora {
namespace {

// One merge a line, "left right"; a first line that begins with "#version" is a comment.
Json read_merges(std::string_view text, std::string_view origin) {
  Json merges = Json::array();
  for (size_t at = 0, line = 1; at < text.size(); ++line) {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string_view content = text.substr(at, end - at);
    at = end + 1;
    if (content.ends_with('\r')) content.remove_suffix(1);
    if (content.empty() || (line == 1 && content.starts_with("#version"))) continue;
    size_t space = content.find(' ');
    QLORA_CHECK(space != std::string_view::npos && content.find(' ', space + 1) == std::string_view::npos,
                data, "{}:{}: expected two tokens with one space between them, found `{}`", origin, line,
                content);
    merges.push_back({std::string(content.substr(0, space)), std::string(content.substr(space + 1))});
  }
  return merges;
}

}  // namespace

Json json_from_vocab_and_merges(const Json& vocab, std::string_view merges, std::string_view origin) {
  Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  Json added =
      Json::array();  // these files do not say which tokens are special: the names that GPT-2's kin use
  for (const char* name : {"<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"}) {
    auto id = vocab.find(name);
    if (id == vocab.end()) continue;
    added.push_back({{"content", name}, {"id", *id}, {"special", true}, {"normalized", false}});
  }
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", read_merges(merges, origin)}}},
          {"pre_tokenizer", byte_level},
          {"decoder", byte_level},
          {"added_tokens", added}};
}

}  // namespace qlora
