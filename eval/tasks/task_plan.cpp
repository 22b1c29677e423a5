// From items to requests.
#include <algorithm>
#include <map>

#include "core/text/unicode.h"
#include "core/text/utf8.h"
#include "eval/rolling.h"
#include "eval/tasks/fewshot.h"
#include "eval/tasks/run_task.h"

namespace qlora {
namespace {

using Ids = std::vector<int32_t>;

// What stands before a text that has no context.
int32_t prefix_token(const Tokenizer& tokenizer) {
  const SpecialTokens& special = tokenizer.special();
  const int32_t id = special.bos >= 0 ? special.bos : special.eos;
  QLORA_CHECK(id >= 0, data,
              "the tokenizer names neither BOS nor EOS, so a text without context cannot be scored");
  return id;
}

// Where the white space at the end of a text begins.
size_t end_without_space(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();)
    if (!is_white_space(next_code_point(text, at))) end = at;
  return end;
}

// As the tokenizer's own file does it; a text that begins with BOS gets no second one.
Ids encode(const Tokenizer& tokenizer, const std::string& text) {
  const int32_t bos = tokenizer.special().bos;
  const std::string word = bos >= 0 ? tokenizer.token(bos) : "";
  return tokenizer.encode(text, word.empty() || !text.starts_with(word));
}

// Windows over a text (rolling.h): the first has `length` tokens, every other one adds `stride`.
void add_windows(size_t item, const TaskItem& source, const Tokenizer& tokenizer, int64_t length,
                 int64_t stride, std::vector<TaskRequest>& out) {
  RollingRequest text;
  text.tokens = tokenizer.encode(source.continuations[0], false);
  text.first = prefix_token(tokenizer);
  text.max_length = length;
  text.context = length - stride + 1;
  for (LogLikelihoodRequest& window : rolling_windows(text, length)) {
    TaskRequest& r = out.emplace_back();
    r.item = item;
    if (out.size() == 1) r.continuation = source.continuations[0];
    r.context_tokens = std::move(window.context);
    r.continuation_tokens = std::move(window.continuation);
  }
}

std::vector<TaskRequest> requests_of(const Task& task, size_t index, const TaskItem& item,
                                     const std::string& examples, const Tokenizer& tokenizer, int64_t length,
                                     int64_t stride) {
  std::vector<TaskRequest> requests;
  if (task.kind == TaskKind::rolling) {
    add_windows(index, item, tokenizer, length, stride, requests);
    QLORA_CHECK(!requests.empty(), data, "task {}, text {}: it is empty", task.name, item.index);
    return requests;
  }
  if (task.kind == TaskKind::generate) {
    TaskRequest& r = requests.emplace_back();
    r.context = examples + item.contexts[0];
    r.context_tokens = encode(tokenizer, r.context);
  } else {
    for (size_t i = 0; i < item.continuations.size(); ++i)
      requests.push_back(encode_pair(tokenizer, examples + item.contexts[item.contexts.size() > 1 ? i : 0],
                                     item.continuations[i]));
  }
  for (TaskRequest& r : requests) {
    r.item = index;
    QLORA_CHECK(
        !r.context_tokens.empty() && (task.kind == TaskKind::generate || !r.continuation_tokens.empty()),
        data, "task {}, question {}: nothing to score after `{}`", task.name, item.index, r.context);
  }
  return requests;
}

// Examples with their right answers, as they stand before a question.
std::string text_of(const TaskData& data, std::span<const size_t> shown) {
  std::string text;
  for (size_t i : shown) {
    const TaskItem& e = data.examples[i];
    const auto gold = static_cast<size_t>(e.gold);
    text += e.contexts[e.contexts.size() > 1 ? gold : 0] + e.continuations[gold] + "\n\n";
  }
  return text;
}

// The last token is predicted, never read: a request may have one token more than the context.
void cut_to(TaskRequest& r, int64_t length) {
  const auto whole = static_cast<int64_t>(r.context_tokens.size() + r.continuation_tokens.size());
  const int64_t over = whole - length - (r.continuation_tokens.empty() ? 0 : 1);
  if (over <= 0) return;
  QLORA_CHECK(over < static_cast<int64_t>(r.context_tokens.size()), data,
              "a continuation of {} tokens does not fit the model's context of {}",
              r.continuation_tokens.size(), length);
  r.context_tokens.erase(r.context_tokens.begin(), r.context_tokens.begin() + over);
  r.cut = true;
}

// The items that are asked: the first of the file, or of each group where the task is many files.
std::vector<size_t> chosen(const Task& task, const TaskData& data, const TaskOptions& options) {
  std::vector<size_t> asked;
  std::map<std::string, int64_t> taken;
  for (size_t i = 0; i < data.items.size(); ++i) {
    const std::string& group = data.items[i].group;
    if (!options.groups.empty() &&
        std::find(options.groups.begin(), options.groups.end(), group) == options.groups.end())
      continue;
    int64_t& n = taken[task.folder ? group : ""];
    if (options.limit > 0 && n >= options.limit) continue;
    ++n;
    asked.push_back(i);
  }
  return asked;
}

}  // namespace

TaskRequest encode_pair(const Tokenizer& tokenizer, const std::string& context,
                        const std::string& continuation) {
  TaskRequest r;
  r.context = context;
  r.continuation = continuation;
  if (context.empty()) {
    const int32_t prefix = prefix_token(tokenizer);
    r.continuation_tokens = tokenizer.encode(continuation, false);
    r.context_tokens = {prefix};
    // A text that begins with the prefix token has its context itself.
    if (!r.continuation_tokens.empty() && r.continuation_tokens.front() == prefix)
      r.continuation_tokens.erase(r.continuation_tokens.begin());
    return r;
  }
  r.context_tokens = encode(tokenizer, context.substr(0, end_without_space(context)));
  const Ids whole = encode(tokenizer, context + continuation);
  if (whole.size() > r.context_tokens.size())
    r.continuation_tokens.assign(whole.begin() + static_cast<std::ptrdiff_t>(r.context_tokens.size()),
                                 whole.end());
  return r;
}

std::string item_hash(std::span<const TaskRequest> requests) {
  Sha256 hash;
  for (const TaskRequest& r : requests)
    hash.update(r.context)
        .update(std::string_view("\0", 1))
        .update(r.continuation)
        .update(std::string_view("\0", 1));
  return hex(hash.finish());
}

TaskPlan plan_task(const Task& task, const TaskData& data, const TaskOptions& options,
                   const Tokenizer& tokenizer, int64_t context_length) {
  TaskPlan plan;
  plan.asked = chosen(task, data, options);
  plan.partial = plan.asked.size() < data.items.size();
  plan.shots = data.shots;
  plan.max_new_tokens = options.max_new_tokens > 0 ? options.max_new_tokens : task.max_new_tokens;
  int64_t length = options.max_length > 0 ? std::min(options.max_length, context_length) : context_length;
  if (task.kind == TaskKind::generate) {
    length -= plan.max_new_tokens;
    QLORA_CHECK(length > 0, usage, "{} new tokens leave no room in the model's context of {}",
                plan.max_new_tokens, context_length);
  }
  const int64_t stride = options.stride > 0 ? options.stride : length;
  QLORA_CHECK(stride <= length, usage, "a stride of {} tokens leaves gaps between windows of {}", stride,
              length);
  std::vector<std::vector<size_t>> shown(data.items.size());
  if (!data.examples.empty()) shown = choose_examples(data, plan.asked.empty() ? 0 : plan.asked.back() + 1);
  Sha256 hash;
  for (size_t index : plan.asked) {
    std::vector<TaskRequest> own =
        requests_of(task, index, data.items[index], text_of(data, shown[index]), tokenizer, length, stride);
    hash.update(item_hash(own));
    for (TaskRequest& r : own) {
      cut_to(r, length);
      plan.cut += r.cut ? 1 : 0;
      plan.longest = std::max(plan.longest,
                              static_cast<int64_t>(r.context_tokens.size() + r.continuation_tokens.size()));
      plan.requests.push_back(std::move(r));
    }
  }
  plan.request_hash = hex(hash.finish());
  return plan;
}

}  // namespace qlora
