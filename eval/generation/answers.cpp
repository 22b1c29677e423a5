#include "eval/generation/answers.h"

#include <algorithm>
#include <optional>

#include "core/base/check.h"
#include "core/models/generate.h"
#include "core/ops/kept_rows.h"
#include "core/text/stop_strings.h"

namespace qlora {
namespace {

constexpr int64_t kCacheBytes = int64_t{2} << 30;  // of keys and values of all answers at a time

// No more at a time than the cache has room for.
int64_t batch_for(const Generator& g, std::span<const Prompt> prompts, int64_t max_new_tokens) {
  const HfConfig& c = g.model.config();
  int64_t rows = 0;
  for (const Prompt& p : prompts)
    rows = std::max(rows, std::min(static_cast<int64_t>(p.tokens.size()) + max_new_tokens, c.max_positions));
  const DType kept = type_of_kept(g.memory.backend(), g.type, g.model.operands());
  const int64_t bytes = rows * c.layers * 2 * c.kv_heads * c.head_dim * static_cast<int64_t>(size_of(kept));
  return std::clamp<int64_t>(kCacheBytes / std::max<int64_t>(bytes, 1), 1, g.batch);
}

// The text of one growing answer, and whether a stop string has ended it.
class Watch {
 public:
  Watch(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : decoder_(tokenizer), stops_(stops) {}
  bool ends_with(int32_t token) {
    stops_.push(decoder_.push(token));
    return stops_.stopped();
  }

 private:
  StreamDecoder decoder_;
  StopStrings stops_;
};

// Requests of one call of generate(): they differ in context, subject and sampling alone.
using Group = std::vector<size_t>;

std::vector<Group> group(std::span<const GenerateRequest> requests) {
  std::vector<Group> groups;
  for (size_t i = 0; i < requests.size(); ++i) {
    const GenerateRequest& r = requests[i];
    auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      const GenerateRequest& first = requests[g.front()];
      return first.max_new_tokens == r.max_new_tokens && first.stop_ids == r.stop_ids;
    });
    (same == groups.end() ? groups.emplace_back() : *same).push_back(i);
  }
  return groups;
}

}  // namespace

std::vector<std::vector<int32_t>> generate_answers(const Generator& g,
                                                   std::span<const GenerateRequest> requests,
                                                   const std::function<Adapter*(SubjectIndex)>& adapter) {
  std::vector<std::vector<int32_t>> answers(requests.size());
  std::vector<std::optional<Watch>> watches(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].stop_strings.empty()) continue;
    QLORA_CHECK(g.tokenizer != nullptr, usage, "generate: request {} has stop strings, but no tokenizer", i);
    watches[i].emplace(*g.tokenizer, requests[i].stop_strings);
  }
  for (const Group& members : group(requests)) {
    std::vector<Prompt> prompts;
    for (size_t i : members)
      prompts.push_back({requests[i].context, adapter(requests[i].subject), requests[i].sampling});
    GenerateOptions options;
    options.max_new_tokens = requests[members.front()].max_new_tokens;
    options.stop_ids = requests[members.front()].stop_ids;
    options.numerics = g.numerics;
    options.drafts = g.drafts;
    options.reuse_prefixes = g.reuse_prefixes;
    options.batch = batch_for(g, prompts, options.max_new_tokens);
    options.on_token = [&](size_t prompt, int32_t token) {
      const size_t i = members[prompt];
      const bool go_on = !g.on_token || g.on_token(i, token);
      return !(watches[i] && watches[i]->ends_with(token)) && go_on;
    };
    options.on_answer = [&](size_t prompt, const std::vector<int32_t>& answer) {
      if (g.on_answer) g.on_answer(members[prompt], answer);
    };
    auto some = generate(g.model, g.memory, g.type, prompts, options);
    for (size_t k = 0; k < members.size(); ++k) answers[members[k]] = std::move(some[k]);
  }
  return answers;
}

}  // namespace qlora
