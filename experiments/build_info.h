#pragma once
// What this program was built from.

#include <string>

namespace qlora {

struct BuildInfo {
  const char* version;
  const char* commit;  // short hash, with "+" when files were changed; "unknown" outside of a git clone
  const char* compiler;
  const char* build_type;
};
const BuildInfo& build_info();
std::string program_line();  // "qlora 0.1.0 (abc1234, GNU 12.2.0, Release)"

}  // namespace qlora
