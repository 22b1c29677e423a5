// The tiny tokenizer, and what load_tokenizer makes of a folder.

#include "core/text/tiny_tokenizer.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"

namespace qlora {
namespace {

using Ids = std::vector<int32_t>;
using test::TinyTokenizer;

int32_t byte_id(char c) {
  return TinyTokenizer::kFirstByte + static_cast<uint8_t>(c);
}

std::string complaint(const Path& folder) {
  return test::message_of(ErrorKind::data, [&] { load_tokenizer(folder); });
}

void edit_config(const Path& folder, const Json& changes) {
  Json config = parse_json(read_file(folder / "tokenizer_config.json"), "config");
  config.update(changes);
  write_file(folder / "tokenizer_config.json", config.dump());
}

}  // namespace

TEST_CASE("The tiny tokenizer gives every text back") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  auto t = load_tokenizer(folder.path());
  CHECK(t->vocab_size() == TinyTokenizer::kVocabSize);
  for (const char* text : {"", "the cat and the hat", " \n\t two  spaces",
                           "na\xC3\xAFve \xF0\x9F\x9A\x80 \xE6\x97\xA5", "<|bos|>x<|im_end|>", "it's 42%"}) {
    CHECK(t->decode(t->encode(text, false), false) == text);
  }
  CHECK(t->encode("q", false) == Ids{byte_id('q')});
  CHECK(t->encode("<|eos|>q<|bos|>", false) == Ids{TinyTokenizer::kEos, byte_id('q'), TinyTokenizer::kBos});
  CHECK(t->decode(t->encode("<|eos|>q<|bos|>", false), true) == "q");
  CHECK(t->encode(" the", false) == Ids{t->id_of("\xC4\xA0the")});
  CHECK(t->token(t->id_of("\xC4\xA0the")) == "\xC4\xA0the");
  CHECK(t->id_of("nothing like it") == -1);
  CHECK(t->token(-1).empty());
  CHECK(t->token(10'000).empty());
}

TEST_CASE("The special tokens come from the configuration beside the tokenizer") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  auto plain = load_tokenizer(folder.path());
  CHECK(plain->special().bos == TinyTokenizer::kBos);
  CHECK(plain->special().eos == TinyTokenizer::kEos);
  CHECK(plain->special().pad == TinyTokenizer::kPad);
  CHECK(plain->special().unk == -1);
  CHECK_FALSE(plain->special().add_bos);
  CHECK(plain->encode("q", true) == Ids{byte_id('q')});

  edit_config(folder.path(), {{"add_eos_token", true}, {"pad_token", {{"content", "<|eos|>"}}}});
  auto with_eos = load_tokenizer(folder.path());
  CHECK(with_eos->special().pad == TinyTokenizer::kEos);
  CHECK(with_eos->special().add_eos);
  CHECK(with_eos->encode("q", true) == Ids{byte_id('q'), TinyTokenizer::kEos});
  CHECK(with_eos->encode("q", false) == Ids{byte_id('q')});
  CHECK(with_eos->content_hash() != plain->content_hash());
}

TEST_CASE("The model's configuration names BOS and EOS where the tokenizer's files name neither") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  auto special = [&](const char* tokenizer, const char* model) {
    write_file(folder.path() / "tokenizer_config.json", tokenizer);
    write_file(folder.path() / "config.json", model);
    return load_tokenizer(folder.path())->special();
  };
  const char* bare = R"({"model_max_length": 64})";
  SpecialTokens both = special(bare, R"({"bos_token_id": 0, "eos_token_id": [4, 1]})");
  CHECK(both.bos == TinyTokenizer::kBos);
  CHECK(both.eos == TinyTokenizer::kEnd);
  CHECK_FALSE(both.add_bos);
  CHECK(both.pad == -1);
  // A common token, one that does not exist, and none.
  SpecialTokens common = special(bare, R"({"bos_token_id": 70, "eos_token_id": 1})");
  CHECK(common.bos == -1);
  CHECK(common.eos == TinyTokenizer::kEos);
  CHECK(special(bare, R"({"bos_token_id": null, "eos_token_id": 4294967297})").eos == -1);
  CHECK(special(bare, R"({"eos_token_id": []})").eos == -1);
  // Files that name EOS alone mean that there is no BOS.
  SpecialTokens named =
      special(R"({"bos_token": null, "eos_token": "<|eos|>"})", R"({"bos_token_id": 0, "eos_token_id": 4})");
  CHECK(named.bos == -1);
  CHECK(named.eos == TinyTokenizer::kEos);

  write_file(folder.path() / "tokenizer_config.json", bare);
  write_file(folder.path() / "config.json", R"({"eos_token_id": "<|eos|>"})");
  CHECK_THAT(complaint(folder.path()), Catch::Contains("config.json: eos_token_id") &&
                                           Catch::Contains("expected a token id, found \"<|eos|>\""));
}

TEST_CASE("The template of the tokenizer file adds BOS unless the configuration forbids it") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path(), true);
  auto t = load_tokenizer(folder.path());
  CHECK(t->special().add_bos);
  CHECK(t->encode("q", true) == Ids{TinyTokenizer::kBos, byte_id('q')});
  edit_config(folder.path(), {{"add_bos_token", false}});
  CHECK(load_tokenizer(folder.path())->encode("q", true) == Ids{byte_id('q')});
  auto alone = load_tokenizer_file(folder.path() / "tokenizer.json");
  CHECK(alone->special().bos == TinyTokenizer::kBos);
  CHECK(alone->special().eos == -1);
}

TEST_CASE("The content hash depends on the content alone") {
  test::TemporaryFolder a, b;
  test::write_tiny_tokenizer(a.path());
  test::write_tiny_tokenizer(b.path());
  std::string hash = load_tokenizer(a.path())->content_hash();
  CHECK(hash.size() == 64);
  CHECK(load_tokenizer(b.path())->content_hash() == hash);
  edit_config(b.path(), {{"model_max_length", 77}});
  CHECK(load_tokenizer(b.path())->content_hash() == hash);
  write_file(b.path() / "chat_template.jinja", "another");
  CHECK(load_tokenizer(b.path())->content_hash() != hash);
}

TEST_CASE("A folder without a tokenizer and special tokens that are not there are errors") {
  test::TemporaryFolder folder;
  CHECK_THAT(complaint(folder.path()),
             Catch::Contains("no tokenizer") && Catch::Contains(folder.path().string()));
  CHECK_THAT(complaint(folder.path() / "absent"), Catch::Contains("no such model folder"));
  test::write_tiny_tokenizer(folder.path());
  edit_config(folder.path(), {{"pad_token", "[PAD]"}});
  CHECK_THAT(complaint(folder.path()), Catch::Contains("pad_token is `[PAD]`"));
  edit_config(folder.path(), {{"pad_token", 5}});
  CHECK_THAT(complaint(folder.path()), Catch::Contains("tokenizer_config.json"));
  write_file(folder.path() / "tokenizer.json", "{\"model\": ");
  CHECK_THAT(complaint(folder.path()), Catch::Contains("not valid JSON"));
}

TEST_CASE("A stream of ids shows a character once it is complete") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  auto t = load_tokenizer(folder.path());
  std::string text = "the \xF0\x9F\x9A\x80 and <|im_end|>\xE6\x97\xA5";
  StreamDecoder stream(*t);
  std::string shown;
  for (int32_t id : t->encode(text, false)) {
    std::string piece = stream.push(id);
    CHECK(piece.find("\xEF\xBF\xBD") == std::string::npos);
    shown += piece;
  }
  CHECK(shown + stream.finish() == "the \xF0\x9F\x9A\x80 and \xE6\x97\xA5");

  StreamDecoder broken(*t);
  CHECK(broken.push(byte_id('\xF0')).empty());
  CHECK(broken.push(byte_id('\x9F')).empty());
  CHECK(broken.finish() == "\xEF\xBF\xBD");
  CHECK(broken.finish().empty());
}

TEST_CASE("Text that is not UTF-8 is refused") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  auto t = load_tokenizer(folder.path());
  CHECK_THROWS_AS(t->encode("ab\xFF", false), Error);
  CHECK_THROWS_WITH(t->encode("ab\xC3", false), Catch::Contains("byte 2 is 0xc3"));
}

}  // namespace qlora
