#pragma once
// For tests: the backends that this machine can run.

#include <string>
#include <vector>

#include "kernels/backend.h"

namespace qlora::test {

// Their names, best first; the last is the reference.
inline std::vector<std::string> runnable_backends() {
  std::vector<std::string> names;
  for (const BackendInfo& info : list_backends()) {
    if (info.available) names.push_back(info.name);
  }
  return names;
}

}  // namespace qlora::test
