#pragma once
// For tests: sequences that share beginnings at random.

#include <cstdint>
#include <vector>

#include "core/base/philox.h"
#include "eval/lm.h"

namespace qlora::test {

using Ids = std::vector<int32_t>;

struct TestSequence {
  SubjectIndex subject = -1;
  Ids ids;
};

// `count` sequences of `subjects` subjects (-1, 0, ...). Each goes on from a random beginning of an earlier
// one (often the same place, so that runs branch) by up to `longest` random tokens; some are repeated or cut.
inline std::vector<TestSequence> random_prefix_tree(uint64_t seed, size_t count, int32_t subjects,
                                                    int32_t vocab, uint32_t longest = 90) {
  PhiloxStream stream(mix_seed(seed, 4711));
  std::vector<TestSequence> all;
  while (all.size() < count) {
    TestSequence s;
    s.subject = static_cast<SubjectIndex>(stream.below(static_cast<uint32_t>(subjects))) - 1;
    if (!all.empty() && stream.below(8) > 0) {
      const Ids& from = all[stream.below(static_cast<uint32_t>(all.size()))].ids;
      const auto size = static_cast<uint32_t>(from.size());
      // Whole, or cut at a multiple of 40.
      uint32_t keep = stream.below(2) == 0 ? size : stream.below(size / 40 + 1) * 40;
      s.ids.assign(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(keep));
    }
    const uint32_t more = stream.below(longest);
    for (uint32_t i = 0; i < more; ++i)
      s.ids.push_back(static_cast<int32_t>(stream.below(static_cast<uint32_t>(vocab))));
    if (!s.ids.empty() && s.ids.size() < 900) all.push_back(std::move(s));
  }
  return all;
}

}  // namespace qlora::test
