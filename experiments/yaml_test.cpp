#include <catch2/catch.hpp>

#include "experiments/yaml.h"

using namespace qlora;
using Catch::Matchers::Contains;

TEST_CASE("yaml keeps file order and places") {
  YamlNode node = parse_yaml("b: 1\na: [x, 'y']\nc:\n  d: no\n", "f.yaml");
  REQUIRE(node.entries.size() == 3);
  CHECK(node.entries[0].key == "b");
  CHECK(node.entries[1].key == "a");
  CHECK(node.entries[1].value.items[0].text == "x");
  CHECK_FALSE(node.entries[1].value.items[0].quoted);
  CHECK(node.entries[1].value.items[1].quoted);
  CHECK(node.entries[1].value.items[1].where.text() == "f.yaml:2:8");
  CHECK(node.entries[2].value.entries[0].value.text == "no");
  CHECK(node.find("a")->kind == YamlNode::Kind::list);
  CHECK(node.find("z") == nullptr);
}

TEST_CASE("yaml null is written in three ways and a quoted word is none of them") {
  YamlNode node = parse_yaml("a:\nb: ~\nc: null\nd: 'null'\ne: ''\n", "f");
  for (const char* key : {"a", "b", "c"}) CHECK(node.find(key)->kind == YamlNode::Kind::null);
  for (const char* key : {"d", "e"}) CHECK(node.find(key)->kind == YamlNode::Kind::scalar);
}

TEST_CASE("yaml refuses two equal keys and names both places") {
  CHECK_THROWS_WITH(parse_yaml("lora_r: 8\nseed: 1\nlora_r: 16\n", "c.yaml"),
                    "c.yaml:3:1: key `lora_r` is given twice; first on line 1");
  CHECK_THROWS_WITH(parse_yaml("a: {x: 1, x: 2}", "c.yaml"), Contains("key `x` is given twice"));
}

TEST_CASE("yaml refuses what cannot be understood in one way") {
  CHECK_THROWS_WITH(parse_yaml("a: [1, 2", "c.yaml"), Contains("c.yaml:") && Contains("not valid YAML"));
  CHECK_THROWS_WITH(parse_yaml("a: &x {b: 1}\nc: {<<: *x}\n", "c.yaml"), Contains("merge keys"));
  CHECK_THROWS_WITH(parse_yaml("[1, 2]: 3", "c.yaml"), Contains("a key must be a plain word"));
  CHECK_THROWS_WITH(parse_yaml("a: 1\n---\nb: 2\n", "c.yaml"), Contains("2 documents"));
  CHECK_THROWS_AS(parse_yaml("a:\n\tb: 1\n", "c.yaml"), Error);
}

TEST_CASE("yaml counts what aliases unfold into") {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c <= 'h'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 10; ++i) bomb += std::string(i > 0 ? "," : "") + "*" + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  CHECK_THROWS_WITH(parse_yaml(bomb, "c.yaml"), Contains("unfolds into more than"));
}

TEST_CASE("an empty yaml file is an empty map and a missing one is a usage error") {
  CHECK(parse_yaml("# nothing\n", "c").kind == YamlNode::Kind::null);
  try {
    read_yaml("/nonexistent/c.yaml");
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::usage);
    CHECK_THAT(e.what(), Contains("/nonexistent/c.yaml"));
  }
}
