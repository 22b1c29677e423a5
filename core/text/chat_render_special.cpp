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

void check_role(const ChatMessage& message, const char* name) {
  const std::string& role = message.role;
  QLORA_CHECK(role == "system" || role == "user" || role == "assistant", usage,
              "chat template {}: a message is of the role `{}`; it knows system, user and assistant", name,
              role);
}

std::string_view without_newlines(std::string_view text, bool front, bool back) {
  while (front && text.starts_with('\n')) text.remove_prefix(1);
  while (back && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";

// An answer of Qwen3: what it thought, and what it said.
struct ThoughtAnswer {
  std::string_view thought, said;
};

ThoughtAnswer split_thought(std::string_view content) {
  const size_t first_end = content.find(kThinkEnd);
  if (first_end == std::string_view::npos) return {{}, content};
  std::string_view thought = without_newlines(content.substr(0, first_end), false, true);
  if (size_t begin = thought.rfind(kThink); begin != std::string_view::npos)
    thought.remove_prefix(begin + kThink.size());
  const std::string_view said = content.substr(content.rfind(kThinkEnd) + kThinkEnd.size());
  return {without_newlines(thought, true, true), without_newlines(said, true, false)};
}

// The last message that a user wrote, not a tool for him; the last of all when there is none.
size_t last_question(std::span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string& text = messages[i].content;
    const bool of_tool = text.starts_with("<tool_response>") && text.ends_with("</tool_response>");
    if (messages[i].role == "user" && !of_tool) return i;
  }
  return messages.empty() ? 0 : messages.size() - 1;
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

std::string render_gemma2(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  check_turns(messages, "gemma2");
  std::string text = "<bos>";
  for (const ChatMessage& m : messages)
    text += fmt::format("<start_of_turn>{}\n{}<end_of_turn>\n", m.role == "user" ? "user" : "model",
                        trimmed(m.content));
  if (add_generation_prompt) text += "<start_of_turn>model\n";
  return text;
}

std::string render_phi3(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text;
  for (const ChatMessage& m : messages) {
    check_role(m, "phi3");
    text += fmt::format("<|{}|>\n{}<|end|>\n", m.role, m.content);
  }
  return text + (add_generation_prompt ? "<|assistant|>\n" : "<|endoftext|>");
}

// Thoughts are written for the answers behind the last question alone; the last answer has them always.
std::string render_qwen3(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  const size_t question = last_question(messages);
  std::string text;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& m = messages[i];
    check_role(m, "qwen3");
    if (m.role != "assistant") {
      text += chatml_message(m.role, m.content);
      continue;
    }
    const ThoughtAnswer answer = split_thought(m.content);
    if (i > question && (i + 1 == messages.size() || !answer.thought.empty()))
      text += chatml_message(m.role, fmt::format("{}\n{}\n{}\n\n{}", kThink, answer.thought, kThinkEnd,
                                                 without_newlines(answer.said, true, false)));
    else
      text += chatml_message(m.role, answer.said);
  }
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

}  // namespace qlora
