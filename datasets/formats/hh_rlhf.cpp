// Anthropic's helpful-harmless pairs (Bai et al. 2022): the chosen dialogue is learned as a whole.

#include "datasets/formats/format.h"

namespace qlora {

Pieces hh_rlhf(const Record& record) {
  return {"", record.text("chosen")};
}

}  // namespace qlora
