#pragma once
// Answers as AlpacaEval (Li et al. 2023) keeps them: model_outputs.json and reference_outputs.json, arrays of
//   {"instruction", "output", "generator", "dataset"}
// and annotations.json, whose rows hold both answers that were compared (layout_alpaca_eval.cpp). An item has
// no id there and is known by its instruction (item_of_words() in rows.h).

#include <string>
#include <string_view>
#include <vector>

#include "eval/judge/rows.h"

namespace qlora {

struct AlpacaEvalOutput {
  std::string system, item, text;
};
// One answer of a row of outputs, both of an annotation; none of a row that has another layout (an
// `instruction` is missing, or an id is there). Throws Error(data) with file and line for a row of outputs
// without text or generator.
std::vector<AlpacaEvalOutput> alpaca_eval_outputs(const Row&);

}  // namespace qlora
