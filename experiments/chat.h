#pragma once
// A conversation with a model: its history, cut to what the context holds.

#include <functional>
#include <string>
#include <vector>

#include "core/models/generate.h"
#include "core/tensor/memory.h"
#include "experiments/generation.h"

namespace qlora {

class Chat {
 public:
  struct Speaker {
    const Model& model;
    Memory& memory;
    DType type;
    const Tokenizer& tokenizer;
    Adapter* adapter = nullptr;
    bool reuse = true;  // a turn reads what is new; false: all again, with the same answers
  };
  Chat(const Speaker&, const GenerationSettings&);

  // The answer to what the user says next; `show` gets it piece by piece, as whole characters. When the
  // conversation is too long its oldest turns are forgotten, but never the system message: half of the
  // context, or all of max_new_tokens where that is less, is kept for the answer. Throws Error(usage) when
  // what was said is too long by itself; the conversation stays as it was.
  std::string say(const std::string& text, const std::function<void(const std::string& piece)>& show);
  void reset();  // begins anew
  // Messages that the model sees no more.
  int64_t forgotten() const { return forgotten_; }
  // Tokens that the last turn's prompt had, and those of them that had to be read.
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t read_tokens() const { return read_tokens_; }

 private:
  std::vector<int32_t> context(const std::vector<ChatMessage>& history) const;
  // Forgets old turns of `history` until its context leaves room for an answer.
  std::vector<int32_t> fit(std::vector<ChatMessage>& history, int64_t& forgotten) const;

  Speaker speaker_;
  GenerationSettings settings_;
  const ChatTemplate& template_;
  std::vector<ChatMessage> history_;  // without the system message
  ReadTokens kept_;
  std::shared_ptr<const FrozenLinear> step_head_;
  int64_t forgotten_ = 0, said_ = 0, prompt_tokens_ = 0, read_tokens_ = 0;
};

}  // namespace qlora
