// Which linears of a model get an adapter.

#include <set>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/lora/build.h"

namespace qlora {
namespace {

// The last parts of all names, for "did you mean".
std::vector<std::string> short_names(const Model& model) {
  std::set<std::string> names = {"all-linear"};
  for (const LinearInfo& linear : model.linears())
    names.insert(linear.name.substr(linear.name.rfind('.') + 1));
  return {names.begin(), names.end()};
}

}  // namespace

bool target_matches(std::string_view target, std::string_view linear) {
  if (target == "all-linear" || target == "all" || linear == target) return true;
  return linear.size() > target.size() && linear.ends_with(target) &&
         linear[linear.size() - target.size() - 1] == '.';
}

std::vector<LinearInfo> match_targets(const Model& model, const std::vector<std::string>& targets) {
  QLORA_CHECK(!targets.empty(), usage,
              "lora_target_modules is empty; use all-linear, or names such as q_proj");
  std::vector<bool> used(targets.size());
  std::vector<LinearInfo> out;
  for (const LinearInfo& linear : model.linears()) {
    bool wanted = false;
    for (size_t i = 0; i < targets.size(); ++i) {
      if (!target_matches(targets[i], linear.name)) continue;
      used[i] = wanted = true;
    }
    if (wanted) out.push_back(linear);
  }
  for (size_t i = 0; i < targets.size(); ++i)
    if (!used[i]) fail(ErrorKind::usage, "{}", unknown_name("LoRA target", targets[i], short_names(model)));
  return out;
}

}  // namespace qlora
