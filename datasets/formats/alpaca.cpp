// Alpaca (Taori et al. 2023), with the texts of qlora.py: both end in a space, so that it is part of the
// prompt.

#include "datasets/formats/format.h"

namespace qlora {

Pieces alpaca(const Record& record) {
  const std::string& instruction = record.text("instruction");
  std::string input = record.optional_text("input");
  if (input.empty())
    return {
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\n" +
            instruction + "\n\n### Response: ",
        record.text("output")};
  return {
      "Below is an instruction that describes a task, paired with an input that provides further context. "
      "Write a response that appropriately completes the request.\n\n### Instruction:\n" +
          instruction + "\n\n### Input:\n" + input + "\n\n### Response: ",
      record.text("output")};
}

}  // namespace qlora
