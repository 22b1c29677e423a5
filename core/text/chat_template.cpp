#include "core/text/chat_template.h"

#include <fmt/ranges.h>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/names.h"

namespace qlora {
namespace {

std::string chatml_message(std::string_view role, std::string_view content) {
  return fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
}

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

constexpr ChatTemplate kTemplates[] = {
    {"smollm2", "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", render_smollm2},
    {"chatml", "153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", render_chatml},
};

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const ChatTemplate& t : kTemplates) all.emplace_back(t.name);
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
              "chat_template.jinja); give it "
              "a plain prompt, or name one of: {}",
              fmt::join(names(), ", "));
  std::string hash = chat_template_hash(jinja);
  for (const ChatTemplate& t : kTemplates) {
    if (hash == t.jinja_sha256) return t;
  }
  fail(ErrorKind::data,
       "this model's chat template (SHA-256 {}) is none of the known ones: {}; name the one that fits, or "
       "give a plain "
       "prompt",
       hash, fmt::join(names(), ", "));
}

std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 bool add_generation_prompt) {
  const ChatTemplate& t = recognize_chat_template(tokenizer.chat_template());
  return tokenizer.encode(t.render(messages, add_generation_prompt), false);
}

}  // namespace qlora
