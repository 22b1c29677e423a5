#include "experiments/chat.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/text/stop_strings.h"
#include "eval/generation/answer_files.h"

namespace qlora {

Chat::Chat(const Speaker& speaker, const GenerationSettings& settings)
    : speaker_(speaker), settings_(settings), template_(chat_template_by_name(settings.chat_template)) {
  check_sampling(settings_.sampling);
  for (const char* stop : template_.stops) settings_.stops.emplace_back(stop);
}

void Chat::reset() {
  history_.clear();
  forgotten_ = 0;
}

std::vector<int32_t> Chat::context(const std::vector<ChatMessage>& history) const {
  std::vector<ChatMessage> messages = history;
  if (!settings_.system.empty()) messages.insert(messages.begin(), {"system", settings_.system});
  return encode_chat(template_, speaker_.tokenizer, messages, true);
}

std::vector<int32_t> Chat::fit(std::vector<ChatMessage>& history, int64_t& forgotten) const {
  const int64_t positions = speaker_.model.config().max_positions;
  const int64_t kept = std::min(settings_.max_new_tokens, positions / 2);
  for (;;) {
    std::vector<int32_t> tokens = context(history);
    if (static_cast<int64_t>(tokens.size()) + kept <= positions) return tokens;
    QLORA_CHECK(history.size() > 1, usage,
                "this has {} tokens with its template; the model has {} positions, {} of which are kept for "
                "the answer",
                tokens.size(), positions, kept);
    history.erase(history.begin(), history.begin() + 2);  // a question and its answer
    forgotten += 2;
  }
}

std::string Chat::say(const std::string& text, const std::function<void(const std::string&)>& show) {
  std::vector<ChatMessage> history = history_;
  history.push_back({"user", text});
  int64_t forgotten = forgotten_;
  const std::vector<int32_t> tokens = fit(history, forgotten);

  Prompt prompt{tokens, speaker_.adapter, settings_.sampling};
  prompt.sampling.key = sampling_key(static_cast<uint64_t>(settings_.seed), fmt::format("chat {}", said_));
  GenerateOptions options;
  options.max_new_tokens = settings_.max_new_tokens;
  options.numerics = settings_.decode_numerics == "exact" ? Numerics::exact : Numerics::decode;
  options.drafts = settings_.drafts;
  options.stop_ids = ends_of_answers(template_, speaker_.tokenizer, speaker_.model);
  StreamDecoder decoder(speaker_.tokenizer);
  StopStrings stops(settings_.stops);
  std::string answer;
  // Blanks at the front are the template's business, not the reader's.
  auto pass = [&](std::string piece) {
    if (answer.empty()) piece.erase(0, std::min(piece.find_first_not_of(" \t\r\n"), piece.size()));
    answer += piece;
    if (!piece.empty()) show(piece);
  };
  options.on_token = [&](size_t, int32_t token) {
    pass(stops.push(decoder.push(token)));
    return !stops.stopped();
  };
  options.on_prompts = [&](int64_t all, int64_t read) {
    prompt_tokens_ = all;
    read_tokens_ = read;
  };
  if (speaker_.reuse) options.kept = &kept_;
  options.step_head = &step_head_;
  generate(speaker_.model, speaker_.memory, speaker_.type, std::span(&prompt, 1), options);
  pass(stops.push(decoder.finish()));
  pass(stops.finish());

  history.push_back({"assistant", std::string(stripped(answer))});
  history_ = std::move(history);
  forgotten_ = forgotten;
  ++said_;
  return history_.back().content;
}

}  // namespace qlora
