// Alpaca (Taori et al. 2023), with the texts of qlora.py.

#include "core/text/chat_render.h"
#include "datasets/formats/format.h"

namespace qlora {

Pieces alpaca(const Record& record) {
  return {alpaca_prompt(record.text("instruction"), record.optional_text("input")), record.text("output")};
}

}  // namespace qlora
