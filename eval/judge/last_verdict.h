#pragma once
// The verdict that the last sentences of a judge's words name: parser threeclass-3. Its rules are few and
// strict, for a verdict that is misread is worse than one that is not read.

#include <string_view>

#include "eval/judge/vote.h"

namespace qlora {

// The last sentence that is one of these, its reason ("because", "as", "by", ...) aside, of at most four from
// the end:
//   1. "Assistant 2". "Option 3."
//   "The answer is 2". "Score: 1". "Final verdict: Assistant 2"     the text's end, and its only such figure
//   "I choose option 3". "Best answer: 2"
//   "Assistant 2 provides the better answer (than Assistant 1)". "Assistant 1 wins"
//   "I would rate Assistant 1's answer as superior to Assistant 2's"
//   "Both answers are equally good". "The two are equivalent". "It is a tie"
// A sentence with a doubt, a negation or a contrast ("not", "neither", "if", "or", "but", ...), a question,
// and a second assistant that is not compared with ("... and Assistant 1 ...") end the search: invalid.
Verdict last_verdict(std::string_view text);

}  // namespace qlora
