#include <catch2/catch.hpp>

#include <fstream>

#include "core/base/error.h"
#include "core/base/test_data.h"
#include "core/io/gguf.h"
#include "core/io/gguf_test_file.h"

using namespace qlora;
using Catch::Matchers::Contains;
using test::GgufBuilder;

namespace {

std::string message(const std::string& bytes) {
  test::TemporaryFolder folder;
  const Path path = folder.path() / "x.gguf";
  std::ofstream(path, std::ios::binary) << bytes;  // not flushed to the disk: there are thousands
  try {
    GgufFile file(path);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::data);
    CHECK_THAT(e.what(), Contains(path.string()));
    return e.what();
  }
  return "no error";
}

GgufBuilder small() {
  GgufBuilder b;
  b.text("general.name", "x").integer("n", 7).number("eps", 1e-5f).flag("yes", true);
  b.pair("wide", 12, GgufBuilder::raw(1e-300));
  b.texts("words", {"a", "", "c"}).integers("types", {1, -3});
  b.floats("w", {2, 3}, {1, 2, 3, 4, 5, 6}).floats("v", {1}, {-1});
  return b;
}

}  // namespace

TEST_CASE("metadata and tensors of a GGUF file are read in versions 2 and 3") {
  test::TemporaryFolder folder;
  for (uint32_t version : {2u, 3u}) {
    const Path path = folder.path() / "x.gguf";
    write_file(path, small().build(version));
    GgufFile file(path);
    CHECK(file.text("general.name") == "x");
    CHECK(file.integer("n") == 7);
    CHECK(file.number("eps") == 1e-5);
    CHECK(file.number("wide") == 1e-300);
    CHECK_THROWS_WITH(file.number("n"), Contains("n is not a floating-point number"));
    CHECK(file.flag("yes") == true);
    CHECK(file.texts("words") == std::vector<std::string>{"a", "", "c"});
    CHECK(file.integers("types") == std::vector<int64_t>{1, -3});
    CHECK_FALSE(file.integer("missing").has_value());
    CHECK_THROWS_WITH(file.integer("eps"), Contains("eps is not an integer"));
    CHECK_THROWS_WITH(file.texts("types"), Contains("types is not a list of texts"));
    REQUIRE(file.tensors().size() == 2);
    const GgufTensor& w = file.tensors().at("w");
    CHECK(w.shape == std::vector<int64_t>{2, 3});
    std::vector<float> values(6);
    decode_gguf(*w.type, w.bytes, values.data());
    CHECK(values == std::vector<float>{1, 2, 3, 4, 5, 6});
  }
}

TEST_CASE("a GGUF file that lies is refused with the place and the reason") {
  CHECK(message(small().build()) == "no error");
  CHECK_THAT(message("GGML"), Contains("not a GGUF file"));
  CHECK_THAT(message(""), Contains("truncated"));
  CHECK_THAT(message(small().build(1)), Contains("version 1"));
  CHECK_THAT(message(small().build(0x03000000)), Contains("big-endian"));
  CHECK_THAT(message(small().integer("n", 8).build()), Contains("n is there twice"));
  CHECK_THAT(message(small().pair("odd", 13, "").build()), Contains("odd has the unknown value type 13"));
  CHECK_THAT(message(small().pair("long", 8, GgufBuilder::raw<uint64_t>(1ull << 60)).build()),
             Contains("long"));
  const std::string many = GgufBuilder::raw<uint32_t>(4) + GgufBuilder::raw<uint64_t>(1ull << 60);
  CHECK_THAT(message(small().pair("many", 9, many).build()), Contains("many is said to have"));
  const std::string few =
      GgufBuilder::raw<uint32_t>(8) + GgufBuilder::raw<uint64_t>(9);  // 72 bytes of lengths
  CHECK_THAT(message(GgufBuilder().pair("few", 9, few).build()), Contains("few is said to have 9"));
  std::string deep;
  for (int i = 0; i < 9; ++i) deep += GgufBuilder::raw<uint32_t>(9) + GgufBuilder::raw<uint64_t>(1);
  CHECK_THAT(message(small().pair("deep", 9, deep).build()), Contains("nested"));
  CHECK_THAT(message(small().pair("big", 10, GgufBuilder::raw(~uint64_t{0})).build()), Contains("too large"));
  CHECK_THAT(message(small().integer("general.alignment", 0).build()), Contains("general.alignment"));
}

TEST_CASE("a tensor of an unknown type or in an impossible place is named") {
  CHECK_THAT(message(small().tensor("iq", {1, 256}, 19, std::string(98, ' ')).build()),
             Contains("`iq`") && Contains("type number 19") && Contains("Q4_K"));
  CHECK_THAT(message(small().floats("w", {1}, {0}).build()), Contains("`w` is there twice"));
  CHECK_THAT(message(small().entry("far", {8}, 0, 1 << 20).build()),
             Contains("`far`") && Contains("truncated"));
  CHECK_THAT(message(small().entry("on", {1}, 0, 0).build()), Contains("overlaps"));
  CHECK_THAT(message(small().entry("odd", {1}, 0, 4).build()), Contains("`odd` starts at 4"));
  CHECK_THAT(message(small().entry("huge", {1ull << 62, 4}, 0, 64).build()), Contains("impossible size"));
  CHECK_THAT(message(small().entry("none", {0}, 0, 64).build()), Contains("impossible size 0"));
  CHECK_THAT(message(small().entry("flat", {}, 0, 64).build()), Contains("0 dimensions"));
  CHECK_THAT(message(small().entry("part", {2, 33}, 8, 64).build()), Contains("rows of 33"));
}

TEST_CASE("a GGUF file cut anywhere is refused and a changed byte never crashes") {
  const std::string whole = small().build();
  for (size_t n = 0; n < whole.size(); ++n) CHECK(message(whole.substr(0, n)) != "no error");
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ (i % 2 == 0 ? 1 : 0x80));
    message(changed);
  }
}
