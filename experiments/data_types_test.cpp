// qlora eval datatypes as its users meet it, and against transformers and bitsandbytes.
#include <fmt/format.h>
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/io/test_models.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {
const Path kSmolLm2 = smollm2();  // before a Workbench sets QLORA_HOME to its own
}

TEST_CASE("perplexities by data type are a table over models that is not made twice") {
  Workbench bench;
  std::string text;
  for (int i = 0; i < 60; ++i) text += fmt::format("Line {} says {} and little else. ", i, i * 7919);
  bench.write("text.txt", text);
  bench.write("rows.jsonl", R"({"text": "A row of its own."})" + std::string("\n") + R"({"text": "x"})");
  std::filesystem::copy(bench.path() / "model", bench.path() / "twin",
                        std::filesystem::copy_options::recursive);
  const std::vector<std::string> ask = {"eval",   "datatypes", "--model",    "model",    "--model", "twin",
                                        "--data", "text.txt",  "rows.jsonl", "--length", "64",      "--json"};
  const ProgramEnd first = bench.run(ask);
  INFO(first.err);
  REQUIRE(first.code == 0);
  const Json table = parse_json(first.out, "stdout");
  std::vector<std::string> types;
  for (const Json& row : table["rows"]) {
    types.push_back(row["type"]);
    const double one = row["models"][0]["perplexity"];
    CHECK(std::isfinite(one));
    CHECK(row["models"][1]["perplexity"] == one);
    CHECK(row["mean"] == one);
  }
  CHECK(types ==
        std::vector<std::string>{"f32", "bf16", "int8", "int4", "fp4-e2m1", "fp4-e3m0", "nf4", "nf4+dq"});
  for (size_t i = 2; i < types.size(); ++i)  // each type is another model
    for (size_t j = 0; j < i; ++j) CHECK(table["rows"][i]["mean"] != table["rows"][j]["mean"]);

  // The twin has the same content, so that the store answered for it; and now it does for both.
  const ProgramEnd stored = bench.run({"results", "query", "SELECT count(*) AS n FROM scores", "--json"});
  CHECK(parse_json(stored.out, "query")[0]["n"] == 8);
  CHECK(bench.run(ask).out == first.out);

  const ProgramEnd people = bench.run({"eval", "datatypes", "--model", "model", "--data", "text.txt",
                                       "--length", "64", "--types", "nf4,int4", "--no-store"});
  CHECK_THAT(people.out,
             Contains("int4") && Contains("34.34") && !Contains("e3m0") && Contains("windows of 64"));

  // Another tokenizer makes other tokens of the same text.
  std::filesystem::copy(bench.path() / "model", bench.path() / "bytes",
                        std::filesystem::copy_options::recursive);
  Json tokenizer = parse_json(read_file(bench.path() / "bytes/tokenizer.json"), "tokenizer.json");
  tokenizer["model"]["merges"] = Json::array();
  bench.write("bytes/tokenizer.json", tokenizer.dump());
  const ProgramEnd two = bench.run({"eval", "datatypes", "--model", "model", "--model", "bytes", "--data",
                                    "text.txt", "--length", "64", "--types", "f32", "--no-store"});
  INFO(two.err);
  CHECK_THAT(two.out, Contains(" (model), ") && Contains(" (bytes) tokens, in windows of 64"));

  const ProgramEnd wrong =
      bench.run({"eval", "datatypes", "--model", "model", "--data", "text.txt", "--types", "nf5"});
  CHECK(wrong.code == 2);
  CHECK_THAT(wrong.err, Contains("did you mean `nf4`?"));
  const ProgramEnd wide =
      bench.run({"eval", "datatypes", "--model", "model", "--data", "text.txt", "--length", "641"});
  CHECK(wide.code == 2);
  CHECK_THAT(wide.err, Contains("takes at most 640 tokens"));
  bench.write("empty.txt", "");
  CHECK(bench.run({"eval", "datatypes", "--model", "model", "--data", "empty.txt"}).code == 3);
}

TEST_CASE("without --data a built-in text is scored and said to be") {
  Workbench bench;
  const std::vector<std::string> ask = {"eval",     "datatypes", "--model",    "model",
                                        "--types",  "f32,nf4",   "--windows",  "2",
                                        "--length", "64",        "--no-store", "--json"};
  const ProgramEnd end = bench.run(ask);
  INFO(end.err);
  REQUIRE(end.code == 0);
  CHECK_THAT(end.err, Contains("built-in text finetuning.txt") && Contains("--data FILE takes another"));
  const Json table = parse_json(end.out, "stdout");
  CHECK(table["data"] == Json({"built-in:finetuning.txt"}));
  CHECK_THAT(table["note"].get<std::string>(), Contains("--data FILE takes another"));
  CHECK(table["rows"][0]["models"][0]["tokens"] == 2 * 63);
  CHECK(std::isfinite(table["rows"][1]["mean"].get<double>()));
  // It is the file of the source tree, word for word.
  std::vector<std::string> same = ask;
  same.insert(same.end(), {"--data", (Path(test::source_folder()) / "eval/texts/finetuning.txt").string()});
  const ProgramEnd given = bench.run(same);
  CHECK(parse_json(given.out, "stdout")["rows"] == table["rows"]);
  CHECK_FALSE(parse_json(given.out, "stdout").contains("note"));
  CHECK_THAT(given.err, !Contains("built-in"));
}

TEST_CASE("SmolLM2's table of data types has the perplexities of transformers and bitsandbytes",
          "[golden][slow]") {
  const Path golden = goldens() / "smollm2/expected.json";
  if (missing(golden) || missing(kSmolLm2)) return;
  const Json expected = parse_json(read_file(golden), golden.string()).at("perplexity");
  const Path source = test_data() / expected.at("source").get<std::string>();
  if (missing(source)) return;
  const Path model = std::filesystem::canonical(kSmolLm2);
  // The first characters (not bytes) of the text.
  std::string text = read_file(source);
  size_t at = 0;
  for (auto left = expected.at("chars").get<size_t>() + 1; at < text.size(); ++at)
    if ((static_cast<unsigned char>(text[at]) & 0xC0u) != 0x80u && --left == 0) break;
  text.resize(at);
  Workbench bench;
  bench.write("wiki.txt", text);
  const bool all = std::getenv("QLORA_LONG_TESTS") != nullptr;
  struct Form {
    const char *type, *golden;
    double epsilon;
    int64_t windows;  // transformers' bf16 rounds everywhere, which needs some windows to average out
  };
  for (const Form& form : {Form{"f32", "f32", 5e-4, 2},
                           {"bf16", "bf16_weights_and_compute", 3e-3, 6},
                           {"nf4", "nf4", 5e-4, 2},
                           {"nf4+dq", "nf4_dq", 5e-4, 2}}) {
    const int64_t windows = all ? expected.at("windows").get<int64_t>() : form.windows;
    const ProgramEnd end = bench.run({"eval", "datatypes", "--model", model.string(), "--data", "wiki.txt",
                                      "--length", expected.at("length").dump(), "--windows",
                                      std::to_string(windows), "--types", form.type, "--no-store", "--json"});
    INFO(form.type << "\n" << end.err);
    REQUIRE(end.code == 0);
    const Json& nll = expected.at("nll").at(form.golden).at("windows");
    double sum = 0;
    for (int64_t w = 0; w < windows; ++w) sum += nll.at(static_cast<size_t>(w)).get<double>();
    const auto tokens = static_cast<double>(windows * (expected.at("length").get<int64_t>() - 1));
    const Json row = parse_json(end.out, "stdout").at("rows").at(0);
    CHECK(row.at("models").at(0).at("tokens") == static_cast<int64_t>(tokens));
    CHECK(row.at("mean").get<double>() == Approx(std::exp(sum / tokens)).epsilon(form.epsilon));
  }
}
