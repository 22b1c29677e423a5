#pragma once
// A local model as a judge: the chat is put into its template and answered by our own inference.

#include <memory>
#include <string>

#include "core/models/model.h"
#include "core/text/tokenizer.h"
#include "eval/generation/answers.h"
#include "eval/judge/chat_client.h"

namespace qlora {

struct ModelJudgeOptions {
  const Model* model = nullptr;
  Memory* memory = nullptr;
  const Tokenizer* tokenizer = nullptr;
  Adapter* adapter = nullptr;  // null: the base
  DType type = DType::f32;
  std::string chat_template = "auto";  // by name, or the tokenizer's own
};

// Questions that a judge works on at a time, and how it is made to: what its memory is planned by.
constexpr int64_t kJudgeBatch = 8;
Generator judge_generator(const Model&, Memory&, DType);

// Not for several threads. An answer depends on the question and the model alone (the random numbers of a
// temperature above 0 are a function of the question). A question that leaves the context no room for an
// answer is `impossible`. What the options point to must outlive the client.
std::unique_ptr<ChatClient> make_model_judge(const ModelJudgeOptions&);

}  // namespace qlora
