#include "experiments/model_judge.h"

#include <algorithm>
#include <vector>

#include "core/base/check.h"
#include "core/text/chat_template.h"
#include "experiments/generation.h"

namespace qlora {

namespace {

class ModelJudge : public ChatClient {
 public:
  explicit ModelJudge(const ModelJudgeOptions& options)
      : options_(options), template_(chat_template_for(*options.tokenizer, options.chat_template)) {}

  ChatReply ask(const ChatRequest& request) override {
    ChatReply answer;
    ask_together(std::span(&request, 1), [&](size_t, const ChatReply& reply) {
      answer = reply;
      return true;
    });
    return answer;
  }

  // Several rounds of those that are worked on at a time: as soon as one ends the next one follows.
  int64_t at_once() const override { return 4 * kJudgeBatch; }

  void ask_together(std::span<const ChatRequest> requests, const Replied& replied) override {
    std::vector<GenerateRequest> asked;
    std::vector<size_t> who;
    for (size_t i = 0; i < requests.size(); ++i) {
      GenerateRequest request = to_generate(requests[i]);
      if (request.max_new_tokens < 1) {
        if (!replied(i, without_room(request))) return;
        continue;
      }
      asked.push_back(std::move(request));
      who.push_back(i);
    }
    struct Enough {};  // what is not answered yet is not worked on any more
    Generator generator = judge_generator(*options_.model, *options_.memory, options_.type);
    generator.on_answer = [&](size_t n, const std::vector<int32_t>& answer) {
      if (!replied(who[n], reply_of(asked[n], answer))) throw Enough();
    };
    try {
      generate_answers(generator, asked, [&](SubjectIndex) { return options_.adapter; });
    } catch (const Enough&) {
    }
  }

 private:
  // No new tokens where the context has no room for one.
  GenerateRequest to_generate(const ChatRequest& request) const {
    std::vector<ChatMessage> messages;
    if (!request.system.empty()) messages.push_back({"system", request.system});
    messages.push_back({"user", request.user});
    GenerateRequest generate;
    generate.context = encode_chat(template_, *options_.tokenizer, messages, true);
    const int64_t positions = options_.model->config().max_positions;
    const int64_t room =
        (positions > 0 ? positions : int64_t{1} << 40) - static_cast<int64_t>(generate.context.size());
    generate.max_new_tokens = std::min<int64_t>(request.max_tokens, room);
    generate.stop_ids = ends_of_answers(template_, *options_.tokenizer, *options_.model);
    generate.sampling.temperature = request.temperature;
    generate.sampling.key = sampling_key(0, request.user);
    return generate;
  }

  static ChatReply without_room(const GenerateRequest& request) {
    ChatReply reply;
    reply.kind = ChatReply::Kind::impossible;
    reply.text = fmt::format("{} tokens of prompt leave the model's context no room", request.context.size());
    return reply;
  }

  ChatReply reply_of(const GenerateRequest& request, const std::vector<int32_t>& answer) const {
    ChatReply reply;
    reply.kind = ChatReply::Kind::answer;
    reply.text = options_.tokenizer->decode(answer, true);
    reply.prompt_tokens = static_cast<int64_t>(request.context.size());
    reply.answer_tokens = static_cast<int64_t>(answer.size());
    return reply;
  }

  ModelJudgeOptions options_;
  const ChatTemplate& template_;
};

}  // namespace

Generator judge_generator(const Model& model, Memory& memory, DType type) {
  return {.model = model, .memory = memory, .type = type, .batch = kJudgeBatch};
}

std::unique_ptr<ChatClient> make_model_judge(const ModelJudgeOptions& options) {
  return std::make_unique<ModelJudge>(options);
}

}  // namespace qlora
