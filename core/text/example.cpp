#include "core/text/example.h"

namespace qlora {

int64_t label_count(const TokenExample& example) {
  int64_t count = 0;
  for (size_t t = 1; t < example.labels.size(); ++t) count += example.labels[t] >= 0;
  return count;
}

}  // namespace qlora
