#pragma once
// Token generation over a cache: several prompts (each with its adapter or none) at once.

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/models/model.h"
#include "core/models/sampling.h"
#include "core/ops/kv_cache.h"

namespace qlora {

struct Prompt {
  std::vector<int32_t> tokens;  // not empty
  Adapter* adapter = nullptr;
  Sampling sampling = {};  // default: greedy
};

// What a call with one prompt leaves to the next one: a conversation is not read again at each of its turns.
struct ReadTokens {
  std::vector<int32_t> tokens;  // those of the cache's first rows, each read exactly
  Adapter* adapter = nullptr;
  std::optional<KvCache> cache;
};

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  // Of the steps that follow the prompts, which themselves are always exact. decode: over a quantized model
  // they also read the output head as eight bits, on every backend (decode_head.h).
  Numerics numerics = Numerics::exact;
  std::vector<int32_t> stop_ids = {};  // generation ends after one of them (it is part of the answer)
  // Prompts that are worked on at a time: the next one enters as soon as an answer ends. 0: all of them. The
  // cache has room for the longest prompt and answer, `batch` times.
  int64_t batch = 0;
  // Tokens that a prompt begins with as another one of its adapter does (a system prompt, examples) are read
  // once: their keys and values are copied from there. No bit of an answer depends on it.
  bool reuse_prefixes = true;
  // Tokens that a step reads of each prompt beside the last one, guessed from its text: so many at most, 0:
  // none, -1: as many as are measured to pay (drafts.h). No bit of an answer depends on it: on a backend
  // whose rows may have other bits among other numbers of rows (a device), there are none whatever it says.
  int64_t drafts = -1;
  // For one prompt alone, of the same model as before: what it begins with as the tokens here do is not read
  // again; what is read now takes their place. No bit of an answer depends on it. Null: nothing is kept.
  ReadTokens* kept = nullptr;
  // The head of steps of the decode class, for the next call with the same model; set by the first one that
  // has such a step. Null: every call makes its own.
  std::shared_ptr<const FrozenLinear>* step_head = nullptr;
  // Called with each new token of prompt i as it appears; returning false ends that prompt. May be empty.
  std::function<bool(size_t prompt, int32_t token)> on_token = {};
  // Called after each pass over prompts: their tokens, and how many of those it has read. May be empty.
  std::function<void(int64_t tokens, int64_t read)> on_prompts = {};
  // Called after each step that follows the prompts: the rows that the model has read, and the tokens that
  // were taken from them. May be empty.
  std::function<void(int64_t rows, int64_t tokens)> on_step = {};
  // Called with each answer as it ends. May be empty.
  std::function<void(size_t prompt, const std::vector<int32_t>& answer)> on_answer = {};
};

// The answers, in the order of the prompts. They do not depend on what shares the batch, nor on its size; one
// ends early where the model has no further positions. A prompt that is empty, too long or has a token
// outside the vocabulary is an Error(usage), and so is a setting out of range.
std::vector<std::vector<int32_t>> generate(const Model&, Memory&, DType, std::span<const Prompt>,
                                           const GenerateOptions&);

}  // namespace qlora
