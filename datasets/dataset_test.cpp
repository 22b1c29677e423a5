#include "datasets/dataset.h"

#include <catch2/catch.hpp>

#include <map>
#include <set>

#include "core/base/hash.h"
#include "core/base/test_data.h"
#include "core/base/test_warnings.h"
#include "datasets/test_tools.h"

using namespace qlora;
using test::ByteTokenizer;
using test::expect_error;

namespace {

struct Fixture {
  test::TemporaryFolder folder;
  DatasetConfig config;
  explicit Fixture(const std::string& content, const std::string& name = "set.jsonl") {
    config.path = (folder.path() / name).string();
    write_file(config.path, content);
  }
  Dataset load(bool special = true) const { return load_dataset(config, ByteTokenizer(special)); }
};

std::string numbered(int count) {
  std::string out;
  for (int i = 0; i < count; ++i)
    out += R"({"input": "question )" + std::to_string(i) + R"(", "output": "a)" + std::to_string(i) + "\"}\n";
  return out;
}

std::string text_of(const TokenExample& e) {
  return ByteTokenizer().decode(e.ids, false);
}

}  // namespace

TEST_CASE("An example is BOS and input then output and EOS with labels on the target only") {
  Fixture f(R"({"input": "ab", "output": "xyz"})");
  Dataset set = f.load();
  REQUIRE(set.train.size() == 1);
  const TokenExample& e = set.train[0];
  CHECK(text_of(e) == "<abxyz>");
  CHECK(e.labels == std::vector<int32_t>{-100, -100, -100, 3 + 'x', 3 + 'y', 3 + 'z', 2});
  CHECK(e.source_tokens == 3);
  CHECK(!e.truncated);
  CHECK(set.format == "input-output");
  CHECK(set.report.tokens == 7);
  CHECK(set.report.labels == 4);
  f.config.train_on_source = true;
  CHECK(f.load().train[0].labels == e.ids);
}

TEST_CASE("Whole conversations are learned from the first token after BOS") {
  Fixture f(R"({"text": "### Human: a"})");
  Dataset set = f.load();
  CHECK(set.format == "oasst1");
  CHECK(text_of(set.train[0]) == "<### Human: a>");
  CHECK(set.train[0].labels[0] == -100);
  CHECK(set.report.labels == static_cast<int64_t>(set.train[0].ids.size()) - 1);
}

TEST_CASE("A tokenizer without BOS and EOS gets none and the missing end is warned of once") {
  Fixture f(numbered(3));
  test::Warnings warnings;
  f.load();
  CHECK(warnings.texts.empty());
  CHECK(f.load(false).train[0].ids.size() == std::string("question 0a0").size());
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Catch::Contains(f.config.path) && Catch::Contains("eos_token"));
}

TEST_CASE("Long examples lose their right ends and the report says how much") {
  Fixture f("{\"input\": \"abcdef\", \"output\": \"uvwxyz\"}\n" + numbered(9));
  f.config.source_max_len = 20;
  f.config.target_max_len = 4;
  Dataset set = f.load();
  CHECK(text_of(set.train[0]) == "<abcdefuvwx");  // a cut target has no EOS
  CHECK(set.train[0].truncated);
  CHECK(set.train[0].lost_tokens == 3);
  CHECK(set.report.targets_cut == 1);
  CHECK(set.report.sources_cut == 0);
  CHECK(set.report.tokens_lost == 3);
  CHECK_THAT(describe(set.report), Catch::Contains("targets in 10.0%"));
}

TEST_CASE("Cutting more than a fifth of the sources is an error unless it is asked for") {
  Fixture f(numbered(10));
  f.config.source_max_len = 4;
  expect_error(ErrorKind::data, {"source_max_len 4", "100.0%", "overlong: truncate"}, [&] { f.load(); });
  f.config.overlong = Overlong::truncate;
  CHECK(f.load().report.sources_cut == 10);
  f.config.overlong = Overlong::error;
  expect_error(ErrorKind::data, {"set.jsonl:1", "overlong: error"}, [&] { f.load(); });
  f.config.overlong = Overlong::drop;
  expect_error(ErrorKind::data, {"all 10 were dropped"}, [&] { f.load(); });
  f.config.source_max_len = 11;  // BOS and "question N", but not "question 10"
  write_file(f.config.path, numbered(12));
  Dataset set = f.load();
  CHECK(set.report.dropped == 2);
  CHECK(set.train.size() == 10);
}

TEST_CASE("The evaluation split is taken away from training by a fixed shuffle") {
  Fixture f(numbered(50));
  f.config.eval_dataset_size = 8;
  Dataset a = f.load(), b = f.load();
  CHECK(a.eval.size() == 8);
  CHECK(a.train.size() == 42);
  std::set<std::string> seen;
  for (const auto* part : {&a.train, &a.eval})
    for (const TokenExample& e : *part) seen.insert(text_of(e));
  CHECK(seen.size() == 50);
  for (size_t i = 0; i < 8; ++i) CHECK(a.eval[i].ids == b.eval[i].ids);
  CHECK(text_of(a.eval[7]) != "<question 49a49>");  // not simply the last
  f.config.max_train_samples = 5;
  Dataset c = f.load();
  REQUIRE(c.train.size() == 5);
  for (size_t i = 0; i < 5; ++i) CHECK(c.train[i].ids == a.train[i].ids);
  CHECK(c.eval.size() == 8);
  f.config.eval_dataset_size = 50;
  expect_error(ErrorKind::data, {"leaves nothing of 50"}, [&] { f.load(); });
}

TEST_CASE("The content hash is that of the unpacked file") {
  Fixture f(numbered(3));
  CHECK(f.load().content_hash == hex(sha256(numbered(3))));
  CHECK(dataset_hash(f.config) == hex(sha256(numbered(3))));
}

TEST_CASE("A set without a label or without a file is refused") {
  Fixture f(R"({"input": "ab", "output": ""})");
  expect_error(ErrorKind::data, {"set.jsonl", "nothing to learn"}, [&] { f.load(false); });
  f.config.path = "no/such/file.json";
  expect_error(ErrorKind::data, {"no/such/file.json"}, [&] { f.load(); });
  f.config.source_max_len = 0;
  expect_error(ErrorKind::usage, {"source_max_len"}, [&] { f.load(); });
}

TEST_CASE("The sample sets load whole and their formats are recognised") {
  std::map<std::string, int> formats;
  for (const auto& entry :
       std::filesystem::directory_iterator(Path(test::source_folder()) / "datasets/samples")) {
    if (!entry.path().extension().string().starts_with(".json")) continue;
    INFO(entry.path().string());
    DatasetConfig config;
    config.path = entry.path().string();
    config.source_max_len = config.target_max_len = 4000;
    config.eval_dataset_size = 32;
    Dataset set = load_dataset(config, ByteTokenizer());
    CHECK(set.report.examples >= 150);
    CHECK(set.report.tokens_lost == 0);
    CHECK(set.eval.size() == 32);
    ++formats[set.format];
  }
  CHECK(formats["alpaca"] >= 1);
  CHECK(formats["oasst1"] >= 1);
}

TEST_CASE("Values of overlong have names and unknown ones are answered with the nearest") {
  for (Overlong o : {Overlong::automatic, Overlong::truncate, Overlong::drop, Overlong::error})
    CHECK(overlong_from_name(name_of(o)) == o);
  expect_error(ErrorKind::usage, {"`truncat`", "`truncate`"}, [] { overlong_from_name("truncat"); });
}
