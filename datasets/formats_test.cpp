#include "datasets/formats/format.h"

#include <catch2/catch.hpp>

#include "core/base/hash.h"
#include "datasets/reader.h"
#include "datasets/test_tools.h"

using namespace qlora;
using test::expect_error;

namespace {

Record record(const std::string& json) {
  return parse_records("a.jsonl", json).front();
}

Pieces pieces(const std::string& format, const std::string& json) {
  Record r = record(json);
  return find_format(format, r).apply(r);
}

std::string recognised(const std::string& json) {
  return find_format("", record(json)).name;
}

}  // namespace

TEST_CASE("Alpaca prompts have the texts of qlora.py and end in a space") {
  Pieces with = pieces("alpaca", R"({"instruction": "Add.", "input": "1 2", "output": "3"})");
  CHECK(with.input.ends_with("request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response: "));
  CHECK(with.output == "3");
  Pieces without = pieces("alpaca", R"({"instruction": "Add.", "input": "", "output": "3"})");
  CHECK(without.input.ends_with("request.\n\n### Instruction:\nAdd.\n\n### Response: "));
  // The whole texts, by the SHA-256 that an independent reading of qlora.py gives.
  CHECK(hex(sha256(with.input)) == "d72d0654270290e40322a9b21a84ec7f1fb467fa25b33da97d66f09c5fcbded0");
  CHECK(hex(sha256(without.input)) == "cb0184d14bea93bd822347a9d111ae5d97406b6a8d2f82e0a089e6a05d92921f");
  CHECK(pieces("alpaca", R"({"instruction": "Add.", "output": "3"})").input == without.input);
  CHECK(pieces("alpaca-clean", R"({"instruction": "Add.", "input": null, "output": "3"})").input ==
        without.input);
}

TEST_CASE("chip2 takes the first question and the first answer") {
  Pieces p = pieces("chip2", R"({"text": "<human>: Why?\n<bot>: Because.\n<bot>: More."})");
  CHECK(p.input == "Why?");
  CHECK(p.output == "Because.");
  expect_error(ErrorKind::data, {"a.jsonl:1", "<bot>"},
               [] { pieces("chip2", R"({"text": "<human>: Why?"})"); });
}

TEST_CASE("Whole conversations have an empty input and the other formats are taken as they are") {
  CHECK(pieces("oasst1", R"({"text": "### Human: a### Assistant: b"})").input.empty());
  CHECK(pieces("oasst1", R"({"text": "### Human: a### Assistant: b"})").output ==
        "### Human: a### Assistant: b");
  CHECK(pieces("hh-rlhf", R"({"chosen": "c", "rejected": "r"})").output == "c");
  CHECK(pieces("self-instruct", R"({"prompt": "p", "completion": "c"})").input == "p");
  CHECK(pieces("longform", R"({"input": "i", "output": "o"})").output == "o");
}

TEST_CASE("Formats are recognised by the fields of the first record") {
  CHECK(recognised(R"({"instruction": "i", "input": "", "output": "o", "text": "t"})") == "alpaca");
  CHECK(recognised(R"({"prompt": "p", "completion": "c"})") == "self-instruct");
  CHECK(recognised(R"({"input": "i", "output": "o"})") == "input-output");
  CHECK(recognised(R"({"chosen": "c", "rejected": "r"})") == "hh-rlhf");
  CHECK(recognised(R"({"text": "<human>: a\n<bot>: b"})") == "chip2");
  CHECK(recognised(R"({"text": "### Human: a### Assistant: b"})") == "oasst1");
  expect_error(ErrorKind::data, {"a.jsonl:1", "`question`", "alpaca"},
               [] { recognised(R"({"question": "q"})"); });
}

TEST_CASE("An unknown format is answered with the nearest") {
  expect_error(ErrorKind::usage, {"`alpacca`", "`alpaca`"}, [] { pieces("alpacca", R"({"output": "o"})"); });
}
