#pragma once
// From an example's two texts to its tokens and labels.

#include "core/text/example.h"
#include "core/text/tokenizer.h"
#include "datasets/dataset.h"
#include "datasets/formats/format.h"

namespace qlora {

struct Tokenized {
  TokenExample example;
  bool source_cut = false, target_cut = false;
};

// The rule of load_dataset() for one example.
Tokenized tokenize_pieces(const Pieces&, const DatasetConfig&, const Tokenizer&);

}  // namespace qlora
