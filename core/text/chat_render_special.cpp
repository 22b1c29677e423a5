// Templates that are written with special tokens.
#include <fmt/format.h>

#include "core/base/check.h"
#include "core/text/chat_render.h"

namespace qlora {
namespace {

// Jinja's trim: blanks of both ends away.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::string chatml_message(std::string_view role, std::string_view content) {
  return fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
}

// Users and assistants take turns, and a user begins.
void check_turns(std::span<const ChatMessage> messages, const char* name) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const char* expected = i % 2 == 0 ? "user" : "assistant";
    QLORA_CHECK(messages[i].role == expected, usage,
                "chat template {}: message {} is of the role `{}`, `{}` is expected", name, i + 1,
                messages[i].role, expected);
  }
}

}  // namespace

std::string render_chatml(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text;
  for (const ChatMessage& m : messages) text += chatml_message(m.role, m.content);
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

std::string render_smollm2(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text;
  if (!messages.empty() && messages.front().role != "system") {
    text = chatml_message("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
  }
  return text + render_chatml(messages, add_generation_prompt);
}

// The first published program of Llama 3 opens an answer always, asked to or not.
std::string render_llama3(std::span<const ChatMessage> messages, bool) {
  std::string text = messages.empty() ? "" : "<|begin_of_text|>";
  for (const ChatMessage& m : messages)
    text += fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", m.role, trimmed(m.content));
  return text + "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

std::string render_llama2(std::span<const ChatMessage> messages, bool) {
  std::string system;
  if (!messages.empty() && messages.front().role == "system") {
    system = fmt::format("<<SYS>>\n{}\n<</SYS>>\n\n", messages.front().content);
    messages = messages.subspan(1);
  }
  check_turns(messages, "llama2");
  std::string text;
  for (const ChatMessage& m : messages) {
    text += m.role == "user" ? fmt::format("<s>[INST] {} [/INST]", trimmed(system + m.content))
                             : fmt::format(" {} </s>", trimmed(m.content));
    system.clear();
  }
  return text;
}

std::string render_mistral(std::span<const ChatMessage> messages, bool) {
  check_turns(messages, "mistral");
  std::string text = "<s>";
  for (const ChatMessage& m : messages)
    text += m.role == "user" ? fmt::format("[INST] {} [/INST]", m.content) : m.content + "</s>";
  return text;
}

std::string render_zephyr(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text;
  for (const ChatMessage& m : messages) text += fmt::format("<|{}|>\n{}</s>\n", m.role, m.content);
  if (add_generation_prompt) text += "<|assistant|>\n";
  return text;
}

}  // namespace qlora
