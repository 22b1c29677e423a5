#pragma once
// How much a model's perplexity suffers from the data type that its linears are stored in: Table 2 of the
// QLoRA paper, over any text.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/text/example.h"
#include "core/text/tokenizer.h"
#include "core/train/pack.h"

namespace qlora {

struct DataTypeForm {
  const char* name;                 // f32, bf16, int8, int4, fp4-e2m1, fp4-e3m0, nf4, nf4+dq
  QuantConfig quant;                // of the linears of the blocks
  Operands operands;                // bf16: weights are stored, and products computed, in bf16; else in f32
  double bits;                      // of a quantized weight, its share of the scales included
  std::optional<double> published;  // the paper's mean over 125M to 13B models on Pile Common Crawl
};
// Best first, except that f32 and bf16 lead.
std::span<const DataTypeForm> data_type_forms();

// Texts, cut into windows that are read alone, from their first token; that one is not predicted. The last
// window of a text may be short; one of a single token is left out.
struct TextWindows {
  std::vector<TokenExample> windows;
  std::string content_hash;  // SHA-256 over the files' content hashes, in their order
};
// Files as task `perplexity` reads them: .txt is one text, other files have one in each row's `text`. `most`:
// the first so many windows; 0: all. Throws Error(data) when there are none, Error(usage) for length < 2.
TextWindows text_windows(std::span<const Path> files, const Tokenizer&, int64_t length, int64_t most);
// The same of one text.
TextWindows text_windows(std::string_view text, const Tokenizer&, int64_t length, int64_t most);

}  // namespace qlora
