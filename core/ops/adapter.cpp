#include "core/ops/adapter.h"

namespace qlora {

Lora* Adapter::find(std::string_view linear) {
  auto found = lora.find(linear);
  return found == lora.end() ? nullptr : &found->second;
}

std::vector<Param*> Adapter::params() {
  std::vector<Param*> all;
  for (auto& [name, pair] : lora) {
    all.push_back(&pair.a);
    all.push_back(&pair.b);
  }
  return all;
}

int64_t Adapter::size() const {
  int64_t n = 0;
  for (const auto& [name, pair] : lora) n += pair.a.value.size() + pair.b.value.size();
  return n;
}

}  // namespace qlora
