#pragma once
// Chat templates. A model folder has a Jinja program that writes a conversation as text; here the known ones
// are code, and a folder's program is recognised by its content.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace qlora {

struct ChatMessage {
  std::string role;  // system, user, assistant, ...
  std::string content;
};

struct ChatTemplate {
  const char* name;
  // The SHA-256 of the Jinja text (newlines written as \n or not, blanks at the ends: all the same) that
  // means it.
  const char* jinja_sha256;
  // The conversation as text; add_generation_prompt: with the header of the answer to come behind it. Encode
  // it without special tokens: the text has those that it needs.
  std::string (*render)(std::span<const ChatMessage> messages, bool add_generation_prompt);
};

// All that are known, by name: smollm2 (ChatML with SmolLM2's default system message), chatml.
std::span<const ChatTemplate> chat_templates();

// Throws Error(usage) for an unknown name, with the nearest one.
const ChatTemplate& chat_template_by_name(std::string_view name);

// Throws Error(data) when the text is none of the known templates (listing them), or empty.
const ChatTemplate& recognize_chat_template(std::string_view jinja);

// The ids of a conversation by the tokenizer's own template.
std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 bool add_generation_prompt);

// The hash under which a Jinja text is known.
std::string chat_template_hash(std::string_view jinja);

}  // namespace qlora
