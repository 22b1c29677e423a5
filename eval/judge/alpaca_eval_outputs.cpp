#include "eval/judge/alpaca_eval_outputs.h"

namespace qlora {

std::vector<AlpacaEvalOutput> alpaca_eval_outputs(const Row& row) {
  if (!row.has("instruction") || row.has("question_id") || row.has("message_id")) return {};
  const std::string item = item_of_words(row.text("instruction"));
  if (!row.has("output_1")) return {{row.text("generator"), item, row.text("output")}};
  std::vector<AlpacaEvalOutput> both;
  for (const char* number : {"1", "2"}) {
    const std::string output = std::string("output_") + number,
                      generator = std::string("generator_") + number;
    both.push_back(
        {row.has(generator.c_str()) ? row.text(generator.c_str()) : output, item, row.text(output.c_str())});
  }
  return both;
}

}  // namespace qlora
