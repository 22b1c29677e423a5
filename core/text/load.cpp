// Which tokenizer a folder or a file holds.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/text/tokenizer_base.h"

namespace qlora {
namespace {

constexpr const char* kEndOfText = "<|endoftext|>";

// vocab.json -> merges.txt, x.vocab -> x.merges.txt, x_vocab.json -> x_merges.txt.
std::optional<Path> merges_beside(const Path& vocab) {
  std::string name = vocab.filename().string();
  std::vector<std::string> candidates;
  if (size_t at = name.rfind("vocab"); at != std::string::npos) {
    candidates.push_back(name.substr(0, at) + "merges.txt");
  }
  candidates.emplace_back("merges.txt");
  for (const std::string& candidate : candidates) {
    Path path = vocab.parent_path() / candidate;
    if (std::filesystem::exists(path)) return path;
  }
  return std::nullopt;
}

std::shared_ptr<TokenizerBase> load_vocab_and_merges(const Path& file, const std::string& content,
                                                     const Json& vocab) {
  std::optional<Path> merges = merges_beside(file);
  QLORA_CHECK(merges.has_value(), data,
              "{}: neither a tokenizer.json nor a vocabulary with its merges.txt beside it", file.string());
  std::string merges_text = read_file(*merges);
  Digest hash = Sha256().update(content).update("\n").update(merges_text).finish();
  auto tokenizer = make_json_tokenizer(json_from_vocab_and_merges(vocab, merges_text, merges->string()),
                                       hex(hash), file.string());
  if (vocab.contains(kEndOfText)) {  // the one special token of GPT-2 plays every part
    TokenizerConfig gpt2;
    gpt2.bos = gpt2.eos = gpt2.unk = kEndOfText;
    gpt2.origin = file.string();
    tokenizer->configure(gpt2);
  }
  return tokenizer;
}

std::shared_ptr<TokenizerBase> load_file(const Path& file) {
  QLORA_CHECK(std::filesystem::is_regular_file(file), data, "{}: there is no such tokenizer file",
              file.string());
  std::string content = read_file(file);
  size_t start = content.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (start == std::string::npos || content[start] != '{')
    return make_sentencepiece_tokenizer(content, file.string());
  Json json = parse_json(content, file.string());
  if (json.contains("model") && json["model"].is_object())
    return make_json_tokenizer(json, hex(sha256(content)), file.string());
  return load_vocab_and_merges(file, content, json);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer_file(const Path& file) {
  return load_file(file);
}

std::shared_ptr<const Tokenizer> load_tokenizer(const Path& folder) {
  QLORA_CHECK(std::filesystem::is_directory(folder), data, "{}: there is no such model folder",
              folder.string());
  for (const char* name : {"tokenizer.json", "tokenizer.json.gz", "tokenizer.model", "vocab.json"}) {
    Path file = folder / name;
    if (!std::filesystem::exists(file)) continue;
    std::shared_ptr<TokenizerBase> tokenizer = load_file(file);
    tokenizer->configure(read_tokenizer_config(folder));
    return tokenizer;
  }
  fail(ErrorKind::data,
       "{}: this model folder has no tokenizer: expected tokenizer.json, tokenizer.model, or vocab.json with "
       "merges.txt; "
       "copy them from where the model came from",
       folder.string());
}

}  // namespace qlora
