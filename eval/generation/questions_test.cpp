#include "eval/generation/questions.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"
#include "core/text/chat_render.h"
#include "eval/generation/answer_files.h"

using namespace qlora;
using Catch::Contains;

namespace {

QuestionFile parse(const std::string& content) {
  return parse_questions("sets/vicuna_questions.jsonl", content);
}

std::string complaint(const std::string& content) {
  return test::message_of(ErrorKind::data, [&] { parse(content); });
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) all.push_back(line);
  return all;
}

// A file of the release, made again from its questions and texts.
void check_release(const Path& questions, const Path& generations, int expected) {
  if (test::missing(questions) || test::missing(generations)) return;
  const QuestionFile file = read_questions(questions);
  const std::vector<std::string> rows = lines(read_file(generations));
  REQUIRE(file.questions.size() == rows.size());
  REQUIRE(static_cast<int>(rows.size()) == expected);
  int equal = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json row = parse_json(rows[i], generations.string());
    const std::string prompt = render_guanaco(file.questions[i].before, true);
    equal += release_row(file.questions[i], prompt, row.at("generation"), row.at("generation_truncated")) ==
             rows[i] + "\n";
  }
  CHECK(equal == expected);
}

}  // namespace

TEST_CASE("Questions are read from the layouts of Vicuna and MT-bench and the release's Open Assistant set") {
  const QuestionFile file = parse(
      R"({"question_id": 1, "text": "Why?", "category": "generic"})"
      "\n\n"
      R"({"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]})"
      "\n"
      R"({"message_id": "a-b", "input": "### Human: A? ### Assistant: B. ### Human: C? ### Assistant:"})");
  CHECK(file.name == "vicuna");
  REQUIRE(file.questions.size() == 3);
  CHECK(file.questions[0].id == "1");
  CHECK(file.questions[0].category == "generic");
  CHECK(file.questions[0].before == std::vector<ChatMessage>{{"user", "Why?"}});
  CHECK(file.questions[1].line == 3);
  CHECK(file.questions[1].turns() == 2);
  CHECK(file.questions[1].further == std::vector<std::string>{"Again."});
  CHECK(file.questions[2].id == "a-b");
  CHECK(file.questions[2].before ==
        std::vector<ChatMessage>{{"user", "A?"}, {"assistant", "B."}, {"user", "C?"}});
}

TEST_CASE("A set of questions has its file's name without the endings that are known") {
  const std::string row = R"({"question_id": 1, "text": "a"})";
  for (const auto& [file, name] : {std::pair("x/vicuna_questions.jsonl", "vicuna"),
                                   {"gpt-3.5-oa-generations.jsonl.gz", "gpt-3.5-oa-generations"},
                                   {"q.v1.jsonl", "q.v1"},
                                   {"q.json", "q"},
                                   {"_questions.jsonl", "_questions"}})
    CHECK(parse_questions(file, row).name == name);
}

TEST_CASE("Bad question files are refused with file and line") {
  const std::string good = R"({"question_id": 1, "text": "Why?"})";
  CHECK_THAT(complaint(good + "\n" + R"({"question_id": "1", "text": "How?"})"),
             Contains("vicuna_questions.jsonl:2") && Contains("that of line 1 already"));
  CHECK_THAT(complaint(good + "\n\n{\"question_id\": 2"),
             Contains("vicuna_questions.jsonl:3: the last line is cut off"));
  CHECK_THAT(complaint("{\"question_id\": 2\n" + good), Contains("vicuna_questions.jsonl:1: not valid JSON"));
  CHECK_THAT(complaint(R"({"text": "Why?"})"), Contains(":1") && Contains("neither `question_id`"));
  CHECK_THAT(complaint(R"({"question_id": 1.5, "text": "Why?"})"), Contains("whole number"));
  CHECK_THAT(complaint(R"({"question_id": 1})"), Contains("no `text`"));
  CHECK_THAT(complaint(R"({"question_id": 1, "text": 3})"), Contains("must be text"));
  CHECK_THAT(complaint(R"({"question_id": 1, "turns": []})"), Contains("list of texts"));
  CHECK_THAT(complaint(R"({"message_id": "m", "input": "Hello"})"), Contains(":1: a dialogue begins with"));
  CHECK_THAT(complaint(R"({"message_id": "m", "input": "### Human: A ### Assistant: B"})"),
             Contains("must end with a question"));
  CHECK_THAT(complaint("[1]"), Contains("a JSON object"));
  CHECK_THAT(complaint("\n"), Contains("holds no question"));
}

TEST_CASE("Answers are written as Python writes JSON") {
  const QuestionFile file = parse(R"({"category": "generic", "question_id": 1, "text": "Warum é?", "x": 1})");
  CHECK(release_row(file.questions[0], "P", "a\n\u00e9\U0001F600 \"b\"", "a") ==
        R"({"question_id": 1, "text": "Warum \u00e9?", "category": "generic", "prompt": "P", )"
        R"("generation": "a\n\u00e9\ud83d\ude00 \"b\"", "generation_truncated": "a"})"
        "\n");
  const std::vector<std::string> turns = {"one", "two"};
  const std::string id = answer_id("m", "1", turns);
  CHECK(id.size() == 22);
  CHECK(fastchat_row(file.questions[0], "m", turns, 1700000000.25) ==
        R"({"question_id": 1, "answer_id": ")" + id +
            R"(", "model_id": "m", "choices": [{"index": 0, "turns": ["one", "two"]}], )"
            R"("tstamp": 1700000000.25})"
            "\n");
  CHECK(answer_id("m", "2", turns) != id);
  CHECK(answer_id("n", "1", turns) != id);
  CHECK(answer_id("m", "1", std::vector<std::string>{"onetwo"}) != id);
  CHECK(stripped(" \n a b\t") == "a b");
  CHECK(stripped(" \n").empty());
}

TEST_CASE("The release's files are made again byte for byte", "[golden]") {
  const Path data = test::test_data() / "04_qlora_eval";
  for (const char* name : {"7b-guanaco", "65b-longform", "13b-chip2"})
    check_release(
        data / "prompts/vicuna_questions.jsonl",
        data / "generations/vicuna" / (std::string(name) + "-vicuna-generations-topp0.9-temp0.7.jsonl"), 80);
  // The prompts of dialogues too: the template guanaco makes them of the questions.
  check_release(data / "prompts/oa_questions.jsonl.gz",
                data / "generations/oa/7b-flan-oa-generations-topp0.9-temp0.7.jsonl.gz", 953);
}
