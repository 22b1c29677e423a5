#include "core/text/chat_template.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/names.h"
#include "core/text/chat_render.h"

namespace qlora {
namespace {

constexpr const char* kEndOfTurn[] = {"<|im_end|>"};
constexpr const char* kEotId[] = {"<|eot_id|>"};
constexpr const char* kEndOfSentence[] = {"</s>"};
constexpr const char* kGemmaEnd[] = {"<end_of_turn>"};
constexpr const char* kPhiEnd[] = {"<|end|>"};
constexpr const char* kHuman[] = {"### Human:"};
constexpr const char* kInstruction[] = {"### Instruction:"};
constexpr const char* kUser[] = {"</s>", "USER:"};

constexpr ChatTemplate kTemplates[] = {
    {"smollm2", "ChatML with SmolLM2's own system message",
     "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", render_smollm2, kEndOfTurn, true},
    {"chatml", "<|im_start|>user ... <|im_end|>",
     "153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", render_chatml, kEndOfTurn, true},
    {"llama3", "Llama 3 Instruct", "b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2",
     render_llama3, kEotId, true},
    {"llama2", "Llama 2 Chat: [INST] ... [/INST]",
     "9780fae5bfea3cfd7be37d328c6edfd296a8869be8131495bbe7eb37e780c88c", render_llama2, kEndOfSentence, true},
    {"mistral", "Mistral Instruct v0.2: [INST] ... [/INST], no system message",
     "26a59556925c987317ce5291811ba3b7f32ec4c647c400c6cc7e3a9993007ba7", render_mistral, kEndOfSentence,
     true},
    {"zephyr", "<|user|> ... </s>", "66291cf0045c2425a3a667cf3cbb7af2b11f09e025c02f97245323ab79119362",
     render_zephyr, kEndOfSentence, true},
    {"gemma2", "Gemma and Gemma 2 Instruct: <start_of_turn>user ... <end_of_turn>, no system message",
     "ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6", render_gemma2, kGemmaEnd, true},
    {"phi3", "Phi-3 Mini Instruct: <|user|> ... <|end|>",
     "dcaee66df77bfbb789ec541fe713218da30225a526f1db97138fc39ee6dc56aa", render_phi3, kPhiEnd, true},
    {"qwen3", "Qwen3: ChatML; older answers without their thoughts",
     "2df317a15cbc983d9602cc391d33be17237d47ec7eb11ead80fae277143958aa", render_qwen3, kEndOfTurn, true},
    {"guanaco", "the QLoRA release's: a sentence, then ### Human: ... ### Assistant:", "", render_guanaco,
     kHuman, false},
    {"oasst1", "what the data set oasst1 trains: ### Human: ...### Assistant:", "", render_oasst1, kHuman,
     false},
    {"alpaca", "what the data set alpaca trains: ### Instruction: ... ### Response:", "", render_alpaca,
     kInstruction, false},
    {"vicuna", "Vicuna v1.1: a sentence, then USER: ... ASSISTANT:", "", render_vicuna, kUser, false},
};

// recognised: only those that a Jinja text can mean.
std::vector<std::string> names(bool recognised = false) {
  std::vector<std::string> all;
  for (const ChatTemplate& t : kTemplates)
    if (!recognised || *t.jinja_sha256 != '\0') all.emplace_back(t.name);
  return all;
}

// JSON files hold a newline of the program as \n, Jinja files hold it as it is; to Jinja both are one inside
// a string.
std::string normalized(std::string_view jinja) {
  std::string text;
  for (size_t i = 0; i < jinja.size(); ++i) {
    bool escape = jinja.substr(i, 2) == "\\n";
    text += escape ? '\n' : jinja[i];
    i += escape;
  }
  constexpr std::string_view kBlank = " \t\r\n";
  size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

}  // namespace

std::span<const ChatTemplate> chat_templates() {
  return kTemplates;
}

const ChatTemplate& chat_template_by_name(std::string_view name) {
  for (const ChatTemplate& t : kTemplates) {
    if (name == t.name) return t;
  }
  throw Error(ErrorKind::usage, unknown_name("chat template", name, names()));
}

std::string chat_template_hash(std::string_view jinja) {
  return hex(sha256(normalized(jinja)));
}

const ChatTemplate& recognize_chat_template(std::string_view jinja) {
  QLORA_CHECK(!normalized(jinja).empty(), data,
              "this model has no chat template (tokenizer_config.json: chat_template, or "
              "chat_template.jinja); give it a plain prompt, or name one of: {}",
              fmt::join(names(), ", "));
  std::string hash = chat_template_hash(jinja);
  for (const ChatTemplate& t : kTemplates) {
    if (hash == t.jinja_sha256) return t;
  }
  fail(ErrorKind::data,
       "this model's chat template (SHA-256 {}) is none of the known ones: {}; name the one that fits, or "
       "give a plain prompt",
       hash, fmt::join(names(true), ", "));
}

const ChatTemplate& chat_template_for(const Tokenizer& tokenizer, std::string_view name) {
  const bool own = name.empty() || name == "auto" || name == kOwnChatTemplate;
  return own ? recognize_chat_template(tokenizer.chat_template()) : chat_template_by_name(name);
}

std::vector<int32_t> encode_chat(const ChatTemplate& t, const Tokenizer& tokenizer,
                                 std::span<const ChatMessage> messages, bool add_generation_prompt) {
  return tokenizer.encode(t.render(messages, add_generation_prompt), !t.writes_special_tokens);
}

std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 bool add_generation_prompt) {
  return encode_chat(chat_template_for(tokenizer, "auto"), tokenizer, messages, add_generation_prompt);
}

std::vector<int32_t> stop_ids(const ChatTemplate& t, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  auto add = [&](int32_t id) {
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  add(tokenizer.special().eos);
  for (const char* stop : t.stops) add(tokenizer.id_of(stop));
  return ids;
}

}  // namespace qlora
