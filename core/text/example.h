#pragma once
// What training consumes: tokenized examples from a cursor. No size(), no random access: a source may be a
// stream.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/json.h"

namespace qlora {

struct TokenExample {
  std::vector<int32_t> ids;
  std::vector<int32_t>
      labels;  // like ids; -100 = not a label. Not shifted: labels[t] is predicted from row t - 1
  int64_t source_tokens = 0;  // of the prompt, after truncation
  bool truncated = false;
  int64_t lost_tokens = 0;
};

// The tokens that are learned: those t >= 1 with labels[t] >= 0.
inline int64_t label_count(const TokenExample& example) {
  int64_t count = 0;
  for (size_t t = 1; t < example.labels.size(); ++t) count += example.labels[t] >= 0;
  return count;
}

class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  // The next example, or nothing at the end (an endless source never ends).
  virtual std::optional<TokenExample> next() = 0;
  // Where the cursor stands, as JSON; restore() continues there: the same examples in the same order. An
  // object with a number "epoch" tells how often the data has been gone through (for logs).
  virtual Json save() const = 0;
  virtual void restore(const Json&) = 0;
};

}  // namespace qlora
