#include "eval/tasks/mmlu_protocol.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/text/chat_template.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

using P = MmluProtocol;

constexpr MmluProtocol kProtocols[] = {
    {.name = "hendrycks",
     .version = "2",  // 1 stored logits alone
     .about = "evaluate.py of hendrycks/test: logits of the letters, mean over questions",
     .wide_header = true,
     .stripped = false,
     .letter = P::Letter::after_prompt,
     .log_probs = false,
     .overlong = P::Overlong::drop_shots,
     .bos = P::Bos::own,
     .window = 0,
     .macro = false,
     .pooled_error = false,
     .answer_loss = false,
     .turns = false},
    {.name = "lm_eval",
     .version = "3",  // 1 stored logits; 2 not whether a letter is greedy
     .about =
         "lm-evaluation-harness 0.4.13, mmlu version 2: log-likelihood of the letters, mean over questions",
     .wide_header = false,
     .stripped = true,
     .letter = P::Letter::after_prompt,
     .log_probs = true,
     .overlong = P::Overlong::cut_left,
     .bos = P::Bos::own,
     .window = 0,
     .macro = false,
     .pooled_error = true,
     .answer_loss = false,
     .turns = true},
    {.name = "qlora",
     .version = "3",  // 1 stored logits; 2 not whether a letter is greedy
     .about = "the callback of qlora.py: at most 2,048 tokens with BOS, mean over subjects",
     .wide_header = true,
     .stripped = false,
     .letter = P::Letter::alone,
     .log_probs = true,
     .overlong = P::Overlong::cut_right,
     .bos = P::Bos::always,
     .window = 2048,
     .macro = true,
     .pooled_error = false,
     .answer_loss = true,
     .turns = false},
};

constexpr char kLetters[] = "ABCD";

std::string stripped(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_code_point(text, at);
    if (is_white_space(c) || (c >= 0x1c && c <= 0x1f)) continue;  // as Python's str.strip
    begin = std::min(begin, start);
    end = at;
  }
  return std::string(begin < end ? text.substr(begin, end - begin) : std::string_view());
}

std::string header(const P& protocol, const std::string& subject) {
  std::string name = (protocol.wide_header ? " " : "") + subject;
  std::replace(name.begin(), name.end(), '_', ' ');
  return fmt::format("The following are multiple choice questions (with answers) about {}.\n\n", name);
}

std::string render(const P& protocol, const MmluQuestion& q) {
  std::string text = protocol.stripped ? stripped(q.question) : q.question;
  for (size_t i = 0; i < 4; ++i) text += fmt::format("\n{}. {}", kLetters[i], q.choices[i]);
  return text + "\nAnswer:";
}

std::string letter_of(const MmluQuestion& q) {
  return std::string(1, kLetters[static_cast<size_t>(q.answer)]);
}

// lm-eval's way of joining two texts: a blank line, unless one of them brings white space to the joint.
std::string system_text(const std::string& instruction, const std::string& header) {
  if (instruction.empty()) return header;
  const bool blank = std::string_view(" \t\r\n\v\f").find(instruction.back()) != std::string_view::npos;
  return instruction + (blank ? "" : "\n\n") + header;
}

// The text of a conversation by the template.
std::string chat(const MmluOptions& options, const P& protocol, const MmluSubject& subject,
                 const MmluQuestion& question, int64_t shots, const Tokenizer& tokenizer) {
  const ChatTemplate& t = options.chat_template == "own" ? recognize_chat_template(tokenizer.chat_template())
                                                         : chat_template_by_name(options.chat_template);
  std::vector<ChatMessage> messages;
  messages.push_back({"system", system_text(options.system_instruction, header(protocol, subject.name))});
  std::string one;
  for (int64_t i = 0; i < shots; ++i) {
    const MmluQuestion& shot = subject.dev[static_cast<size_t>(i)];
    if (asks_in_turns(options)) {
      messages.push_back({"user", render(protocol, shot)});
      messages.push_back({"assistant", letter_of(shot)});
    } else {
      one += render(protocol, shot) + " " + letter_of(shot) + "\n\n";
    }
  }
  messages.push_back({"user", one + render(protocol, question)});
  return t.render(messages, true);
}

}  // namespace

std::span<const MmluProtocol> mmlu_protocols() {
  return kProtocols;
}

bool asks_in_turns(const MmluOptions& options) {
  const bool usual = options.chat_template != "none" && mmlu_protocol_named(options.protocol).turns;
  return options.fewshot_as_multiturn.value_or(usual);
}

std::vector<ListedTask> listed_mmlu() {
  std::vector<ListedTask> list;
  for (const P& p : kProtocols) {
    ListedTask& line = list.emplace_back(ListedTask{
        "mmlu", p.version, p.name, TaskKind::choice, MmluOptions().shots, {"acc", "acc_macro"}, p.about});
    if (p.macro) std::swap(line.metrics[0], line.metrics[1]);  // the published one first
    if (p.answer_loss) line.metrics.push_back("answer_loss");
  }
  return list;
}

std::vector<std::string> mmlu_protocol_names() {
  std::vector<std::string> names;
  for (const P& p : kProtocols) names.emplace_back(p.name);
  return names;
}

std::vector<std::string> mmlu_bos_rules() {
  return {"protocol", "own", "always", "never"};
}

std::vector<std::string> mmlu_chat_templates() {
  std::vector<std::string> names = {"none", "own"};
  for (const ChatTemplate& t : chat_templates()) names.emplace_back(t.name);
  return names;
}

const MmluProtocol& mmlu_protocol_named(std::string_view name) {
  for (const P& p : kProtocols)
    if (name == p.name) return p;
  fail(ErrorKind::usage, "{}", unknown_name("MMLU protocol", name, mmlu_protocol_names()));
}

MmluPrompt mmlu_prompt(const MmluOptions& options, const MmluSubject& subject, const MmluQuestion& question,
                       int64_t shots, const Tokenizer& tokenizer) {
  const P& protocol = mmlu_protocol_named(options.protocol);
  const bool chats = options.chat_template != "none";
  QLORA_CHECK(chats || !options.fewshot_as_multiturn.value_or(false), usage,
              "MMLU: examples as turns of a conversation need a chat template (chat_template: own)");
  QLORA_CHECK(question.rendered.empty() || (!chats && options.system_instruction.empty()), usage,
              "MMLU: these data are rendered prompts; they take neither chat template nor system text");
  MmluPrompt prompt;
  if (!question.rendered.empty()) {
    prompt.text = question.rendered;
  } else if (chats) {
    prompt.text = chat(options, protocol, subject, question, shots, tokenizer);
    prompt.letter_gap = "";
  } else {
    prompt.text = system_text(options.system_instruction, header(protocol, subject.name));
    for (int64_t i = 0; i < shots; ++i) {
      const MmluQuestion& shot = subject.dev[static_cast<size_t>(i)];
      prompt.text += render(protocol, shot) + " " + letter_of(shot) + "\n\n";
    }
    prompt.text += render(protocol, question);
  }
  const int32_t bos = tokenizer.special().bos;
  const bool begun = bos >= 0 && prompt.text.starts_with(tokenizer.token(bos));
  const bool always =
      options.bos == "always" || (options.bos == "protocol" && protocol.bos == P::Bos::always);
  prompt.with_special = !begun && !always && options.bos != "never";
  prompt.with_bos = !begun && always;
  return prompt;
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const MmluPrompt& prompt, std::string_view more) {
  std::vector<int32_t> ids = tokenizer.encode(prompt.text + std::string(more), prompt.with_special);
  if (prompt.with_bos && tokenizer.special().bos >= 0) ids.insert(ids.begin(), tokenizer.special().bos);
  return ids;
}

}  // namespace qlora
