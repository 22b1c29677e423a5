#include "experiments/model_judge.h"

#include <algorithm>
#include <vector>

#include "core/base/check.h"
#include "core/models/generate.h"
#include "core/text/chat_template.h"
#include "experiments/generation.h"

namespace qlora {

namespace {

class ModelJudge : public ChatClient {
 public:
  explicit ModelJudge(const ModelJudgeOptions& options)
      : options_(options), template_(chat_template_for(*options.tokenizer, options.chat_template)) {}

  ChatReply ask(const ChatRequest& request) override {
    std::vector<ChatMessage> messages;
    if (!request.system.empty()) messages.push_back({"system", request.system});
    messages.push_back({"user", request.user});
    const std::vector<int32_t> context = encode_chat(template_, *options_.tokenizer, messages, true);
    ChatReply reply;
    const int64_t positions = options_.model->config().max_positions;
    const int64_t room =
        (positions > 0 ? positions : int64_t{1} << 40) - static_cast<int64_t>(context.size());
    if (room < 1) {
      reply.kind = ChatReply::Kind::impossible;
      reply.text = fmt::format("{} tokens of prompt leave the model's context no room", context.size());
      return reply;
    }
    GenerateOptions generation;
    generation.max_new_tokens = std::min<int64_t>(request.max_tokens, room);
    generation.stop_ids = ends_of_answers(template_, *options_.tokenizer, *options_.model);
    Prompt prompt{context, options_.adapter};
    prompt.sampling.temperature = request.temperature;
    prompt.sampling.key = sampling_key(0, request.user);
    const std::vector<std::vector<int32_t>> answers =
        generate(*options_.model, *options_.memory, options_.type, std::span(&prompt, 1), generation);
    reply.kind = ChatReply::Kind::answer;
    reply.text = options_.tokenizer->decode(answers[0], true);
    reply.prompt_tokens = static_cast<int64_t>(context.size());
    reply.answer_tokens = static_cast<int64_t>(answers[0].size());
    return reply;
  }

 private:
  ModelJudgeOptions options_;
  const ChatTemplate& template_;
};

}  // namespace

std::unique_ptr<ChatClient> make_model_judge(const ModelJudgeOptions& options) {
  return std::make_unique<ModelJudge>(options);
}

}  // namespace qlora
