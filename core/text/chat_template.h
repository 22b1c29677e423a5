#pragma once
// Chat templates: how a conversation becomes the text that a model was trained on. A model folder may have a
// Jinja program for it; here the known ones are code, and a folder's program is recognised by its content.
// Beside them stand the plain-text prompts of the QLoRA paper's data sets, which no folder names.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace qlora {

struct ChatMessage {
  std::string role;  // system, user, assistant, ...
  std::string content;
  bool operator==(const ChatMessage&) const = default;
};

struct ChatTemplate {
  const char* name;
  const char* about;  // one line for users
  // The SHA-256 of the Jinja text (newlines written as \n or not, blanks at the ends: all the same) that
  // means it; empty when there is none.
  const char* jinja_sha256;
  // The conversation as text; add_generation_prompt: with the header of the answer to come behind it. Throws
  // Error(usage) for an order of roles that the template cannot write.
  std::string (*render)(std::span<const ChatMessage> messages, bool add_generation_prompt);
  // What ends an answer besides the model's end of text.
  std::span<const char* const> stops;
  // True: the text has the special tokens that it needs. False: plain text, to which the tokenizer adds what
  // its own file says (BOS).
  bool writes_special_tokens;
};

// All that are known: smollm2 (ChatML with SmolLM2's default system message), chatml, llama3, llama2,
// mistral, zephyr, gemma2, phi3, qwen3 (without tools and the switch of thinking); guanaco, oasst1, alpaca,
// vicuna.
std::span<const ChatTemplate> chat_templates();

// Throws Error(usage) for an unknown name, with the nearest one.
const ChatTemplate& chat_template_by_name(std::string_view name);

// Throws Error(data) when the text is none of the known templates (listing them), or empty.
const ChatTemplate& recognize_chat_template(std::string_view jinja);

// Another word for `auto`, the tokenizer's own; MMLU's protocols store this one.
inline constexpr const char* kOwnChatTemplate = "own";

// By name; `auto`, `own` or empty: the tokenizer's own.
const ChatTemplate& chat_template_for(const Tokenizer&, std::string_view name);

// The ids of a conversation.
std::vector<int32_t> encode_chat(const ChatTemplate&, const Tokenizer&, std::span<const ChatMessage> messages,
                                 bool add_generation_prompt);
// The same by the tokenizer's own template.
std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 bool add_generation_prompt);

// The ids that end an answer: the tokenizer's end of text, and those stops of the template that are tokens.
std::vector<int32_t> stop_ids(const ChatTemplate&, const Tokenizer&);

// The hash under which a Jinja text is known.
std::string chat_template_hash(std::string_view jinja);

}  // namespace qlora
