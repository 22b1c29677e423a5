// Templates that are plain text.
#include "core/base/check.h"
#include "core/text/chat_render.h"

namespace qlora {
namespace {

constexpr std::string_view kHuman = "### Human: ", kAssistant = "### Assistant:";

// Of the QLoRA release's generations (artidoro/qlora, eval/generations).
constexpr std::string_view kGuanacoSystem =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions.";
// Of Vicuna v1.1 (lm-sys/FastChat).
constexpr std::string_view kVicunaSystem =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions.";
constexpr std::string_view kAlpacaSystem =
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.";
constexpr std::string_view kAlpacaInputSystem =
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.";

// The first sentences: a system message, else the template's own. Takes the message away.
std::string opening(std::span<const ChatMessage>& messages, std::string_view own) {
  if (messages.empty() || messages.front().role != "system") return std::string(own);
  const std::string& text = messages.front().content;
  messages = messages.subspan(1);
  return text;
}

bool is_answer(const ChatMessage& m) {
  return m.role == "assistant";
}

}  // namespace

std::string alpaca_prompt(std::string_view instruction, std::string_view input) {
  std::string text(input.empty() ? kAlpacaSystem : kAlpacaInputSystem);
  text.append("\n\n### Instruction:\n").append(instruction);
  if (!input.empty()) text.append("\n\n### Input:\n").append(input);
  return text + "\n\n### Response: ";
}

std::string render_guanaco(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text = opening(messages, kGuanacoSystem);
  auto add = [&](std::string_view part) { text.append(text.empty() ? "" : " ").append(part); };
  for (const ChatMessage& m : messages)
    add(is_answer(m) ? std::string(kAssistant) + " " + m.content : std::string(kHuman) + m.content);
  if (add_generation_prompt) add(kAssistant);
  return text;
}

std::string render_oasst1(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text = opening(messages, "");
  for (const ChatMessage& m : messages)
    text += is_answer(m) ? std::string(kAssistant) + " " + m.content : std::string(kHuman) + m.content;
  if (add_generation_prompt) text += kAssistant;
  return text;
}

std::string render_alpaca(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text = opening(messages, kAlpacaSystem);
  for (const ChatMessage& m : messages)
    text += is_answer(m) ? "\n\n### Response: " + m.content : "\n\n### Instruction:\n" + m.content;
  if (add_generation_prompt) text += "\n\n### Response: ";
  return text;
}

std::string render_vicuna(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text = opening(messages, kVicunaSystem) + " ";
  for (const ChatMessage& m : messages)
    text += is_answer(m) ? "ASSISTANT: " + m.content + "</s>" : "USER: " + m.content + " ";
  if (add_generation_prompt) text += "ASSISTANT:";
  return text;
}

std::vector<ChatMessage> read_dialogue(std::string_view text) {
  QLORA_CHECK(text.starts_with(kHuman), data, "a dialogue begins with `{}`, this one with `{}`", kHuman,
              text.substr(0, 20));
  std::vector<ChatMessage> messages;
  bool answer = false;
  text.remove_prefix(kHuman.size());
  for (;;) {
    const std::string mark = " " + std::string(answer ? kHuman : kAssistant);
    const size_t end = text.find(mark);
    messages.push_back({answer ? "assistant" : "user", std::string(text.substr(0, end))});
    if (end == std::string_view::npos) return messages;
    text.remove_prefix(end + mark.size());
    if (!answer && text.empty()) return messages;  // an answer is to follow
    if (!answer && text.starts_with(' ')) text.remove_prefix(1);
    answer = !answer;
  }
}

}  // namespace qlora
