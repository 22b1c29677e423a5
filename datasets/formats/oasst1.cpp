// OpenAssistant as Guanaco was trained on it: "### Human: ...### Assistant: ..." in one text, all of which is
// learned, the user's turns included. Any {text} data can be learned so.

#include "datasets/formats/format.h"

namespace qlora {

Pieces oasst1(const Record& record) {
  return {"", record.text("text")};
}

}  // namespace qlora
