// Self-Instruct's finetuning file (Wang et al. 2022): prompt and completion, as they are.

#include "datasets/formats/format.h"

namespace qlora {

Pieces self_instruct(const Record& record) {
  return {record.text("prompt"), record.text("completion")};
}

}  // namespace qlora
