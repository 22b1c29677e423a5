#include "eval/judge/layouts.h"

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {

std::span<const JudgmentLayout> layouts() {
  static const JudgmentLayout kLayouts[] = {kFastchatPairLayout, kFastchatSingleLayout, kArenaLayout,
                                    kAlpacaEvalLayout,   kHumanCsvLayout,       kQloraLayout};
  return kLayouts;
}

const JudgmentLayout& layout(const std::string& name) {
  std::vector<std::string> known;
  for (const JudgmentLayout& l : layouts()) {
    if (l.name == name) return l;
    known.emplace_back(l.name);
  }
  fail(ErrorKind::usage, "{}", unknown_name("layout of judgments", name, known));
}

}  // namespace qlora
