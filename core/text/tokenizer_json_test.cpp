// A tokenizer.json of our own: the model, added tokens, decoders, damaged files.

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "core/base/error.h"
#include "core/base/test_data.h"
#include "core/text/decoder.h"
#include "core/text/tiny_tokenizer.h"
#include "core/text/tokenizer_base.h"

namespace qlora {
namespace {

using Ids = std::vector<int32_t>;
using Strings = std::vector<std::string>;

// Characters a b c d, three merges, an unknown token; everything else is up to the test.
Json small() {
  return parse_json(R"({"model": {"type": "BPE", "unk_token": "<unk>",
    "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "ab": 5, "bc": 6, "abc": 7, "_": 8},
    "merges": ["b c", "a b", "a bc"]}})",
                    "small");
}

std::shared_ptr<TokenizerBase> make(const Json& json) {
  return make_json_tokenizer(json, "hash", "file.json");
}

Ids encode(const Json& json, std::string_view text) {
  return make(json)->encode(text, false);
}

Json with_token(Json flags, Json json = small()) {
  flags["content"] = flags.value("content", "<x>");
  flags["id"] = 20;
  json["added_tokens"] = Json::array({flags});
  return json;
}

Strings decode(const char* config, Strings tokens) {
  Json parsed = parse_json(config, "test");
  return make_decoder(parsed.is_null() ? nullptr : &parsed, "file.json")(std::move(tokens));
}

}  // namespace

TEST_CASE("Merges are done by rank and from the left") {
  CHECK(encode(small(), "abc") == Ids{7});  // b+c comes before a+b
  CHECK(encode(small(), "abab") == Ids{5, 5});
  CHECK(encode(small(), "abcabc") == Ids{7, 7});
  CHECK(encode(small(), "").empty());
  Json later = small();
  later["model"]["merges"] = {"a b", "b c", "a bc"};
  CHECK(encode(later, "abc") == Ids{5, 3});
  later["model"]["ignore_merges"] = true;
  CHECK(encode(later, "abc") == Ids{7});
}

TEST_CASE("A long word costs no more than it should and equals its parts") {
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += "abcd";
  Ids ids = encode(small(), text);
  REQUIRE(ids.size() == 100'000);
  CHECK(ids[0] == 7);
  CHECK(ids[99'999] == 4);
}

TEST_CASE("Unknown characters become the unknown token or bytes or nothing") {
  CHECK(encode(small(), "axyb") == Ids{1, 0, 0, 2});
  Json fused = small();
  fused["model"]["fuse_unk"] = true;
  CHECK(encode(fused, "axyb") == Ids{1, 0, 2});
  Json none = small();
  none["model"].erase("unk_token");
  CHECK(encode(none, "axyb") == Ids{5});  // the neighbours of what vanished are merged
  Json bytes = small();
  bytes["model"]["byte_fallback"] = true;
  bytes["model"]["vocab"].update({{"<0xC3>", 9}, {"<0xA9>", 10}});
  CHECK(encode(bytes, "a\xC3\xA9\xC3\xA8") == Ids{1, 9, 10, 0});  // the second has a byte without a token
}

TEST_CASE("Words come from the cache unchanged") {
  auto t = make(small());
  Ids first = t->encode("abcabd", false);
  CHECK(t->encode("abcabd", false) == first);
  CHECK(first == Ids{7, 5, 4});
}

TEST_CASE("Several threads may share a tokenizer") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  auto t = load_tokenizer(folder.path()), alone = load_tokenizer(folder.path());
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back("the cat number " + std::to_string(i * 7919) + " and <|eos|> the hat");
    expected.push_back(alone->encode(texts.back(), false));
  }
  std::vector<std::vector<Ids>> found(4);
  std::vector<std::thread> threads;
  for (auto& ids : found) {
    threads.emplace_back([&] {
      for (const std::string& text : texts) ids.push_back(t->encode(text, false));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : found) CHECK(ids == expected);
}

TEST_CASE("Added tokens are found whole and the longest first") {
  Json json = small();
  json["added_tokens"] = {{{"content", "<x>"}, {"id", 20}, {"special", true}, {"normalized", false}},
                          {{"content", "<x><x>"}, {"id", 21}, {"special", false}, {"normalized", false}}};
  CHECK(encode(json, "a<x>bc") == Ids{1, 20, 6});
  CHECK(encode(json, "<x><x><x>") == Ids{21, 20});
  CHECK(encode(json, "a<x") == Ids{1, 0, 0});
  auto t = make(json);
  CHECK(t->vocab_size() == 22);
  CHECK(t->id_of("<x>") == 20);
  CHECK(t->token(21) == "<x><x>");
  CHECK(t->decode(Ids{1, 20, 21, 1}, false) == "a <x> <x><x> a");  // no decoder: tokens with spaces between
  CHECK(t->decode(Ids{1, 20, 21, 1}, true) == "a <x><x> a");
}

TEST_CASE("Added tokens take blanks along and mind word borders as their flags say") {
  CHECK(encode(with_token(Json::object()), "a <x> b") == Ids{1, 0, 20, 0, 2});
  CHECK(encode(with_token({{"lstrip", true}}), "a  <x> b") == Ids{1, 20, 0, 2});
  CHECK(encode(with_token({{"rstrip", true}}), "a <x>  b") == Ids{1, 0, 20, 2});
  CHECK(encode(with_token({{"lstrip", true}, {"rstrip", true}}), " <x>  <x> ") == Ids{20, 20});
  Json word = with_token({{"content", "ab"}, {"single_word", true}});
  word["model"]["vocab"].erase("ab");
  word["model"]["merges"] = Json::array();
  CHECK(encode(word, "ab") == Ids{20});
  CHECK(encode(word, "cab") == Ids{3, 1, 2});
  CHECK(encode(word, "-ab-") == Ids{0, 20, 0});
}

TEST_CASE("Normalized added tokens are searched for in the normalized text") {
  Json json = small();
  json["normalizer"] = parse_json(R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]})",
                                  "test");
  Json raw = with_token({{"normalized", false}}, json), normalized = with_token({{"normalized", true}}, json);
  CHECK(encode(normalized, "<x>a<x>") == Ids{20, 1, 0, 0, 0});  // `_<x>` only at the front
  CHECK(encode(normalized, "a <x>") == Ids{8, 1, 20});
  CHECK(encode(raw, "<x>a<x>") == Ids{20, 8, 1, 20});  // every piece is normalized alone
  Json lower = small();
  lower["normalizer"] = {{"type", "Lowercase"}};
  CHECK(encode(with_token({{"content", "HELLO"}, {"normalized", true}}, lower), "aHeLLoA") == Ids{1, 20, 1});
}

TEST_CASE("Of a token that the model knows too the id of the model counts") {
  Json json = small();
  json["added_tokens"] = {{{"content", "<unk>"}, {"id", 33}, {"special", true}, {"normalized", false}}};
  CHECK(encode(json, "<unk>") == Ids{0});
}

TEST_CASE("Post processors put ids around a text") {
  Json json = small();
  json["post_processor"] = parse_json(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
      {"type": "RobertaProcessing", "cls": ["c", 3], "sep": ["d", 4]}]})",
                                      "test");
  auto t = make(json);
  CHECK(t->encode("a", true) == Ids{3, 1, 4});
  CHECK(t->encode("a", false) == Ids{1});
  CHECK(t->special().bos == 3);
  CHECK(t->special().eos == 4);
  CHECK(t->special().unk == 0);
  json["post_processor"] = {{"type", "TemplateProcessing"}, {"single", Json::array()}};
  CHECK_THROWS_WITH(make(json), Catch::Contains("places"));
  for (const char* id : {"-1", "4294967299", "18446744073709551615"}) {
    json["post_processor"] = parse_json(R"({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "c"}}], "special_tokens": {"c": {"ids": [)" +
                                            std::string(id) + "]}}}",
                                        "test");
    CHECK_THROWS_WITH(make(json), Catch::Contains("expected token ids, found " + std::string(id)));
  }
}

TEST_CASE("Decoders turn tokens into text") {
  CHECK(decode(R"({"type": "ByteLevel"})", {"\xC4\xA0Hi", "\xC3\x83", "\xC2\xA9", "\xC3\x83"}) ==
        Strings{" Hi\xC3\xA9\xEF\xBF\xBD"});
  CHECK(decode(R"({"type": "ByteLevel"})", {"a b"}) == Strings{"a b"});  // outside the alphabet: as it is
  CHECK(decode(R"({"type": "ByteFallback"})", {"<0xC3>", "<0xA9>", "x", "<0xC3>", "<0xC3>", "<0xZZ>"}) ==
        Strings{"\xC3\xA9", "x", "\xEF\xBF\xBD", "\xEF\xBF\xBD", "<0xZZ>"});
  CHECK(decode(R"({"type": "Fuse"})", {"a", "b"}) == Strings{"ab"});
  CHECK(decode(R"({"type": "Strip", "content": " ", "start": 1, "stop": 1})", {"  a  ", " "}) ==
        Strings{" a ", ""});
  CHECK(decode(R"({"type": "Metaspace", "replacement": "▁"})", {"▁Hey", "▁you"}) == Strings{"Hey", " you"});
  CHECK(decode(R"({"type": "Metaspace", "prepend_scheme": "never"})", {"▁Hey"}) == Strings{" Hey"});
  CHECK(decode(R"({"type": "BPEDecoder"})", {"a</w>", "b</w>"}) == Strings{"a ", "b"});
  CHECK(decode(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
      {"type": "Replace", "pattern": {"String": "_"}, "content": " "}]})",
               {"a_", "_b"}) == Strings{"a  b"});
  CHECK(decode("null", {"a", "b"}) == Strings{"a b"});
  CHECK_THROWS_WITH(decode(R"({"type": "CTC"})", {}), Catch::Contains("decoder"));
}

TEST_CASE("A damaged tokenizer file is an error that names the merge") {
  auto message = [](const Json& json) -> std::string {
    try {
      make(json);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::data);
      return e.what();
    }
    return "(no error)";
  };
  Json json = small();
  json["model"]["merges"].push_back("a z");
  CHECK_THAT(message(json),
             Catch::Contains("file.json: merge 3 is `a` + `z`") && Catch::Contains("`z` is not in"));
  json["model"]["merges"][3] = {"c", "d"};
  CHECK_THAT(message(json), Catch::Contains("`cd` is not in the vocabulary"));
  json["model"]["merges"][3] = "a  b";
  CHECK_THAT(message(json), Catch::Contains("merge 3 is `a  b`"));
  json["model"]["merges"][3] = 7;
  CHECK_THAT(message(json), Catch::Contains("merge 3"));
  json = small();
  json["model"]["vocab"]["e"] = 1;
  CHECK_THAT(message(json), Catch::Contains("belongs to two tokens"));
  json["model"]["vocab"]["e"] = -1;
  CHECK_THAT(message(json), Catch::Contains("`e` has the id -1"));
  json["model"].erase("vocab");
  CHECK_THAT(message(json), Catch::Contains("field `vocab` is missing"));
  CHECK_THAT(message(Json::object()), Catch::Contains("field `model` is missing"));
  json = small();
  json["model"]["unk_token"] = "<none>";
  CHECK_THAT(message(json), Catch::Contains("unk_token `<none>`"));
}

TEST_CASE("Other model types are named as not supported yet") {
  for (const char* type : {"WordPiece", "Unigram", "WordLevel"}) {
    Json json = {{"model", {{"type", type}, {"vocab", Json::object()}}}};
    CHECK_THROWS_WITH(make(json), Catch::Contains(type) && Catch::Contains("not supported yet"));
  }
  Json random = small();
  random["model"]["dropout"] = 0.1;
  CHECK_THROWS_WITH(make(random), Catch::Contains("dropout"));
  Json suffix = small();
  suffix["model"]["end_of_word_suffix"] = "</w>";
  CHECK_THROWS_WITH(make(suffix), Catch::Contains("end_of_word_suffix"));
}

TEST_CASE("A vocabulary with its merges beside it is the same tokenizer") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  Json json = parse_json(read_file(folder.path() / "tokenizer.json"), "tokenizer.json");
  auto whole = load_tokenizer_file(folder.path() / "tokenizer.json");
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : json["model"]["merges"]) {
    merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\r\n";
  }
  write_file(folder.path() / "my-vocab.json", json["model"]["vocab"].dump());
  CHECK_THROWS_WITH(load_tokenizer_file(folder.path() / "my-vocab.json"), Catch::Contains("merges.txt"));
  write_file(folder.path() / "my-merges.txt", merges);
  auto parts = load_tokenizer_file(folder.path() / "my-vocab.json");
  std::string text = "the cat and the hat of things, it's 42";
  CHECK(parts->encode(text, false) == whole->encode(text, false));
  CHECK(parts->decode(parts->encode(text, false), false) == text);
  write_file(folder.path() / "my-merges.txt", "a b c\n");
  CHECK_THROWS_WITH(load_tokenizer_file(folder.path() / "my-vocab.json"), Catch::Contains("my-merges.txt:1"));
}

TEST_CASE("Files that are no tokenizer are told apart") {
  test::TemporaryFolder folder;
  Path file = folder.path() / "tokenizer.model";
  write_file(file, "IQ== 0\nIg== 1\n");
  CHECK_THROWS_WITH(load_tokenizer_file(file), Catch::Contains("tiktoken"));
  write_file(file, "nonsense");
  CHECK_THROWS_WITH(load_tokenizer_file(file),
                    Catch::Contains("neither a tokenizer.json nor a SentencePiece"));
  CHECK_THROWS_WITH(load_tokenizer_file(folder.path() / "absent.json"), Catch::Contains("absent.json"));
}

}  // namespace qlora
