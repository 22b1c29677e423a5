#pragma once
// The conversations' texts: one function a template, for the table of chat_template.cpp; and the pieces of
// text that training formats share with them.

#include <span>
#include <string>
#include <string_view>

#include "core/text/chat_template.h"

namespace qlora {

// Alpaca (Taori et al. 2023) with the texts of qlora.py, which end in a space; an empty input has a text of
// its own.
std::string alpaca_prompt(std::string_view instruction, std::string_view input);

// A dialogue in one text, as the QLoRA release writes those of Open Assistant:
// "### Human: q ### Assistant: a ### Human: q ### Assistant:". Throws Error(data) when it does not begin with
// the user's turn. render_guanaco() is the inverse.
std::vector<ChatMessage> read_dialogue(std::string_view text);

std::string render_chatml(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_smollm2(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_llama3(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_llama2(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_mistral(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_zephyr(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_gemma2(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_phi3(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_qwen3(std::span<const ChatMessage>, bool add_generation_prompt);

// Plain texts. A system message takes the place of the text's own first sentences.
std::string render_guanaco(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_oasst1(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_alpaca(std::span<const ChatMessage>, bool add_generation_prompt);
std::string render_vicuna(std::span<const ChatMessage>, bool add_generation_prompt);

}  // namespace qlora
