#include "core/text/chat_template.h"

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/base/test_data.h"
#include "core/text/tiny_tokenizer.h"

namespace qlora {
namespace {

const std::vector<ChatMessage> kQuestion = {{"user", "Hi"}};

}  // namespace

TEST_CASE("Chat templates write a conversation") {
  const ChatTemplate& chatml = chat_template_by_name("chatml");
  CHECK(chatml.render(kQuestion, false) == "<|im_start|>user\nHi<|im_end|>\n");
  CHECK(chatml.render(kQuestion, true) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(chatml.render({}, true) == "<|im_start|>assistant\n");

  const ChatTemplate& smollm2 = chat_template_by_name("smollm2");
  std::string text = smollm2.render(kQuestion, false);
  CHECK(text.rfind("<|im_start|>system\nYou are", 0) == 0);
  CHECK(text.find("<|im_start|>user\nHi<|im_end|>\n") != std::string::npos);
  std::vector<ChatMessage> with_system = {{"system", "S"}, {"user", "Hi"}};
  CHECK(smollm2.render(with_system, false) == chatml.render(with_system, false));
  CHECK(smollm2.render({}, false).empty());
}

TEST_CASE("A chat template is recognised however its newlines are written") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path());
  auto t = load_tokenizer(folder.path());
  std::string jinja = t->chat_template();
  CHECK(std::string(recognize_chat_template(jinja).name) == "chatml");
  std::string escaped;
  for (char c : jinja) escaped += c == '\n' ? std::string("\\n") : std::string(1, c);
  CHECK(escaped != jinja);
  CHECK(std::string(recognize_chat_template(" " + escaped + "\n").name) == "chatml");
  CHECK(encode_chat(*t, kQuestion, true) ==
        t->encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", false));
}

TEST_CASE("Unknown chat templates are answered with the known names") {
  CHECK_THROWS_WITH(recognize_chat_template("{{ messages }}"),
                    Catch::Contains("none of the known ones: smollm2, chatml"));
  CHECK_THROWS_WITH(recognize_chat_template(" \n"), Catch::Contains("no chat template"));
  CHECK_THROWS_WITH(chat_template_by_name("chatlm"), Catch::Contains("chatml"));
}

}  // namespace qlora
