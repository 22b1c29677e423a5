#include "core/text/chat_template.h"

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/base/test_data.h"
#include "core/text/chat_render.h"
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

TEST_CASE("Plain templates write the texts of the QLoRA release and of its training data") {
  const std::vector<ChatMessage> three = {{"user", "Q1"}, {"assistant", "A1"}, {"user", "Q2"}};
  const std::string guanaco =
      "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
      "detailed, and polite answers to the user's questions.";
  auto text = [](const char* name, const std::vector<ChatMessage>& messages, bool prompt) {
    return chat_template_by_name(name).render(messages, prompt);
  };
  CHECK(text("guanaco", kQuestion, true) == guanaco + " ### Human: Hi ### Assistant:");
  CHECK(text("guanaco", three, true) ==
        guanaco + " ### Human: Q1 ### Assistant: A1 ### Human: Q2 ### Assistant:");
  CHECK(text("oasst1", three, true) == "### Human: Q1### Assistant: A1### Human: Q2### Assistant:");
  CHECK(text("oasst1", kQuestion, false) == "### Human: Hi");
  CHECK(text("alpaca", kQuestion, true) == alpaca_prompt("Hi", ""));
  CHECK(text("alpaca", three, false).ends_with("Q1\n\n### Response: A1\n\n### Instruction:\nQ2"));
  CHECK(text("vicuna", three, true) ==
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions. USER: Q1 ASSISTANT: A1</s>USER: Q2 "
        "ASSISTANT:");
  // A system message takes the first sentences' place.
  const std::vector<ChatMessage> system = {{"system", "S."}, {"user", "Hi"}};
  CHECK(text("guanaco", system, true) == "S. ### Human: Hi ### Assistant:");
  CHECK(text("alpaca", system, true) == "S.\n\n### Instruction:\nHi\n\n### Response: ");
  CHECK(text("vicuna", system, true) == "S. USER: Hi ASSISTANT:");
}

TEST_CASE("Templates with special tokens write what their Jinja programs write") {
  // The expected texts are jinja2's.
  const std::vector<ChatMessage> talk = {
      {"system", "S."}, {"user", " hi "}, {"assistant", " yo "}, {"user", "x"}};
  CHECK(chat_template_by_name("zephyr").render(talk, true) ==
        "<|system|>\nS.</s>\n<|user|>\n hi </s>\n<|assistant|>\n yo </s>\n<|user|>\nx</s>\n<|assistant|>\n");
  CHECK(chat_template_by_name("llama2").render(talk, true) ==
        "<s>[INST] <<SYS>>\nS.\n<</SYS>>\n\n hi [/INST] yo </s><s>[INST] x [/INST]");
  CHECK(chat_template_by_name("llama2").render(std::span(talk).subspan(1, 2), false) ==
        "<s>[INST] hi [/INST] yo </s>");
  CHECK_THROWS_WITH(chat_template_by_name("mistral").render(talk, true), Catch::Contains("role `system`"));
  CHECK_THROWS_WITH(chat_template_by_name("llama2").render(std::span(talk).subspan(2), true),
                    Catch::Contains("`user` is expected"));
}

TEST_CASE("Templates of Gemma 2 and Phi-3 write what their Jinja programs write") {
  // The expected texts are jinja2's.
  const std::vector<ChatMessage> talk = {
      {"system", "S."}, {"user", " hi "}, {"assistant", " yo "}, {"user", "x"}};
  const std::span<const ChatMessage> turns = std::span(talk).subspan(1);
  const ChatTemplate& gemma = chat_template_by_name("gemma2");
  const std::string gemma_text =
      "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n"
      "<start_of_turn>user\nx<end_of_turn>\n";
  CHECK(gemma.render(turns, false) == gemma_text);
  CHECK(gemma.render(turns, true) == gemma_text + "<start_of_turn>model\n");
  CHECK_THROWS_WITH(gemma.render(talk, true), Catch::Contains("gemma2") && Catch::Contains("role `system`"));

  const ChatTemplate& phi = chat_template_by_name("phi3");
  const std::string phi_text =
      "<|system|>\nS.<|end|>\n<|user|>\n hi <|end|>\n<|assistant|>\n yo <|end|>\n<|user|>\nx<|end|>\n";
  CHECK(phi.render(talk, true) == phi_text + "<|assistant|>\n");
  CHECK(phi.render(talk, false) == phi_text + "<|endoftext|>");
  const std::vector<ChatMessage> tool = {{"tool", "5"}};
  CHECK_THROWS_WITH(phi.render(tool, true), Catch::Contains("phi3") && Catch::Contains("role `tool`"));
}

TEST_CASE("Qwen3's template keeps thoughts behind the last question alone") {
  // The expected texts are jinja2's.
  const ChatTemplate& qwen = chat_template_by_name("qwen3");
  CHECK(qwen.render(kQuestion, true) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  const std::vector<ChatMessage> talk = {{"user", "q"},
                                         {"assistant", "<think>\nbecause\n</think>\n\na"},
                                         {"user", "r"},
                                         {"assistant", "<think>\nso\n</think>\n\nb"},
                                         {"assistant", "\nc"}};
  CHECK(qwen.render(talk, false) ==
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nso\n</think>\n\nb<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\nc<|im_end|>\n");
  const std::vector<ChatMessage> tool = {{"user", "q"}, {"tool", "5"}};
  CHECK_THROWS_WITH(qwen.render(tool, true), Catch::Contains("qwen3") && Catch::Contains("role `tool`"));
}

TEST_CASE("A dialogue in one text is read and written back") {
  const std::string text = "### Human: Why? ### Assistant: So:  ### Human: And\n\nthen? ### Assistant:";
  const std::vector<ChatMessage> messages = read_dialogue(text);
  CHECK(messages ==
        std::vector<ChatMessage>{{"user", "Why?"}, {"assistant", "So: "}, {"user", "And\n\nthen?"}});
  CHECK(render_guanaco(messages, true).ends_with("questions. " + text));
  CHECK(read_dialogue("### Human: a ### Assistant: b").back() == ChatMessage{"assistant", "b"});
  CHECK_THROWS_WITH(read_dialogue("Hello"), Catch::Contains("begins with"));
}

TEST_CASE("An answer ends at the end of text and at those stops of its template that are tokens") {
  test::TemporaryFolder folder;
  test::write_tiny_tokenizer(folder.path(), true);
  auto t = load_tokenizer(folder.path());
  using T = test::TinyTokenizer;
  CHECK(stop_ids(chat_template_by_name("chatml"), *t) == std::vector<int32_t>{T::kEos, T::kEnd});
  CHECK(stop_ids(chat_template_by_name("guanaco"), *t) == std::vector<int32_t>{T::kEos});
  // Only plain text gets the tokenizer's BOS.
  CHECK(encode_chat(chat_template_by_name("oasst1"), *t, kQuestion, true).front() == T::kBos);
  CHECK(encode_chat(chat_template_by_name("chatml"), *t, kQuestion, true).front() == T::kStart);
  CHECK(&chat_template_for(*t, "auto") == &chat_template_by_name("chatml"));
  CHECK(&chat_template_for(*t, "vicuna") == &chat_template_by_name("vicuna"));
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
