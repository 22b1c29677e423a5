// Every set of vectors under goldens/tokenizers against the tokenizer files under data/02_tokenizers: ids,
// ids with special tokens, and decoded texts, all exactly equal.

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "core/text/golden_test_data.h"

namespace qlora {
namespace {

using Ids = std::vector<int32_t>;

// Where the tokenizer of a set lies: in a folder of its name, or one of these.
Path tokenizer_of(const std::string& name) {
  static const std::map<std::string, std::string> kElsewhere = {
      {"gpt2", "gpt2/gpt2.vocab"},
      {"gpt_neox", "gpt_neox/20B_tokenizer.json"},
      {"mistral_spm_v1", "mistral_spm/tokenizer.model.v1"},
      {"mistral_spm_v3", "mistral_spm/mistral_instruct_tokenizer_240323.model.v3"},
      {"sp_test", "sentencepiece_test/test_model.model"},
      {"t5_hf", "t5/tokenizer.json"},
      {"t5_spm", "t5/t5_tokenizer_base.model"},
      {"tiny_bpe", "tiny_tokenizers/tiny_bpe_tokenizer.json"},
      {"tiny_spm", "tiny_tokenizers/m.model"},
      {"bert_base_cased", "bert/bert_base_cased_vocab.txt"},
      {"bert_base_uncased", "bert/bert_base_uncased_vocab.txt"},
  };
  Path root = test::tokenizer_data();
  if (auto found = kElsewhere.find(name); found != kElsewhere.end()) return root / found->second;
  for (const char* file : {"tokenizer.json", "tokenizer.json.gz", "tokenizer.model"}) {
    if (Path path = root / name / file; std::filesystem::exists(path)) return path;
  }
  return root / name / "tokenizer.json";
}

// Texts on which libsentencepiece 0.1.97 and 0.2.3, which made the vectors, break ties between equal scores
// differently.
bool tie_between_versions(const std::string& name, int64_t text) {
  static const std::map<std::string, std::set<int64_t>> kTies = {
      {"sp_test", {39}}, {"tiny_spm", {39}}, {"t5_spm", {22, 42, 154}}};
  auto found = kTies.find(name);
  return found != kTies.end() && found->second.count(text) > 0;
}

void check_set(const Path& vectors, const std::vector<std::string>& texts) {
  std::string name = vectors.stem().string();
  auto tokenizer = test::load_or_skip(name, tokenizer_of(name));
  if (!tokenizer) return;
  int64_t checked = 0, ties = 0;
  for (const Json& row : test::read_json_lines(vectors)) {
    auto index = row.at("text_index").get<int64_t>();
    const std::string& text = texts.at(static_cast<size_t>(index));
    Ids ids = tokenizer->encode(text, false);
    if (ids != row.at("ids").get<Ids>() && tie_between_versions(name, index)) {
      ++ties;
      continue;
    }
    INFO(name << ", text " << index);
    CHECK(ids == row.at("ids").get<Ids>());
    CHECK(tokenizer->encode(text, true) == row.at("ids_special").get<Ids>());
    CHECK(tokenizer->decode(ids, false) == row.at("decoded").get<std::string>());
    if (tokenizer->decode(ids, true) ==
        tokenizer->decode(ids, false)) {  // no special token in the text itself
      CHECK(tokenizer->decode(tokenizer->encode(text, true), true) == row.at("decoded").get<std::string>());
    }
    ++checked;
  }
  CHECK(checked > 0);
  std::printf("(%s: %d texts equal, %d ties between library versions)\n", name.c_str(),
              static_cast<int>(checked), static_cast<int>(ties));
}

}  // namespace

TEST_CASE("Tokenizers give the ids and texts of the libraries that their files come from", "[golden]") {
  Path folder = test::goldens() / "tokenizers";
  if (test::missing(folder / "texts.jsonl") || test::missing(test::tokenizer_data())) return;
  std::vector<std::string> texts;
  for (const Json& row : test::read_json_lines(folder / "texts.jsonl")) {
    REQUIRE(row.at("text_index").get<size_t>() == texts.size());
    texts.push_back(row.at("text").get<std::string>());
  }
  std::vector<Path> sets;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    bool vectors = entry.path().extension() == ".jsonl" && name != "texts.jsonl" &&
                   name.rfind("chat_", 0) != 0 && entry.path().stem().extension().empty();
    if (vectors) sets.push_back(entry.path());
  }
  std::sort(sets.begin(), sets.end());
  REQUIRE_FALSE(sets.empty());
  for (const Path& set : sets) check_set(set, texts);
}

}  // namespace qlora
