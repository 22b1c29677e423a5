// The tokenizer of the real model as `qlora model import` writes it, against the vectors of the original one.

#include <catch2/catch.hpp>

#include "core/text/chat_template.h"
#include "core/text/golden_test_data.h"

namespace qlora {
namespace {

using Ids = std::vector<int32_t>;

TEST_CASE("The imported tokenizer gives the ids and texts of the original", "[golden]") {
  const Path folder = test::model_folder("SmolLM2-135M-Instruct"), vectors = test::goldens() / "tokenizers";
  if (test::missing(folder) || test::missing(vectors / "smollm2.jsonl")) return;
  auto tokenizer = load_tokenizer(folder);
  const std::vector<Json> texts = test::read_json_lines(vectors / "texts.jsonl");
  for (const Json& row : test::read_json_lines(vectors / "smollm2.jsonl")) {
    const auto index = row.at("text_index").get<size_t>();
    const auto text = texts.at(index).at("text").get<std::string>();
    INFO("text " << index);
    const Ids ids = tokenizer->encode(text, false);
    CHECK(ids == row.at("ids").get<Ids>());
    CHECK(tokenizer->encode(text, true) == row.at("ids_special").get<Ids>());
    CHECK(tokenizer->decode(ids, false) == row.at("decoded").get<std::string>());
  }
}

TEST_CASE("The imported chat template gives the text and the ids of the original", "[golden]") {
  const Path folder = test::model_folder("SmolLM2-135M-Instruct"), vectors = test::goldens() / "tokenizers";
  if (test::missing(folder) || test::missing(vectors / "chat_smollm2.jsonl")) return;
  auto tokenizer = load_tokenizer(folder);
  for (const Json& row : test::read_json_lines(vectors / "chat_smollm2.jsonl")) {
    std::vector<ChatMessage> messages;
    for (const Json& m : row.at("messages")) messages.push_back({m.at("role"), m.at("content")});
    const bool prompt = row.at("add_generation_prompt").get<bool>();
    INFO("conversation " << row.at("conversation"));
    CHECK(recognize_chat_template(tokenizer->chat_template()).render(messages, prompt) == row.at("text"));
    CHECK(encode_chat(*tokenizer, messages, prompt) == row.at("ids").get<Ids>());
  }
}

}  // namespace
}  // namespace qlora
