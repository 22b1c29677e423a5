#pragma once
// Which systems votes are about, and where; and what is said about a name that is none of them.

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "eval/judge/judgments.h"

namespace qlora {

// Systems by name, each with FILE:LINE of the first vote about it.
using KnownSystems = std::map<std::string, std::string>;
KnownSystems known_systems(std::span<const JudgmentFile>);

// The name that the votes have for `asked`, which may be an alias (system_alias()). Throws Error(usage):
// "ASKED_BY: unknown system `bleu`; did you mean `blue` (FILE:LINE)?", or, when none is near, all that are
// known, each with its place. `asked_by` says where the name stands ("--systems", "sweep.yaml:7:20:
// `anchors`").
std::string find_system(const KnownSystems&, const std::string& asked, std::string_view asked_by);

}  // namespace qlora
