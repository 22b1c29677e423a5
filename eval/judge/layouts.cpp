#include "eval/judge/layouts.h"

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {

std::span<const Layout> layouts() {
  static const Layout kLayouts[] = {kFastchatPairLayout, kFastchatSingleLayout, kArenaLayout,
                                    kAlpacaEvalLayout,   kHumanCsvLayout,       kQloraLayout};
  return kLayouts;
}

const Layout& layout(const std::string& name) {
  std::vector<std::string> known;
  for (const Layout& l : layouts()) {
    if (l.name == name) return l;
    known.emplace_back(l.name);
  }
  fail(ErrorKind::usage, "{}", unknown_name("layout of judgments", name, known));
}

}  // namespace qlora
