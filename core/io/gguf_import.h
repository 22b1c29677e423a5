#pragma once
// From a GGUF file to a Hugging Face folder.

#include <cstddef>
#include <functional>

#include "core/base/file.h"

namespace qlora {

// Told after every tensor: bytes of weights written, and of all.
using ImportProgress = std::function<void(size_t done, size_t all)>;

// Writes config.json, generation_config.json, model.safetensors (f32: the values of the blocks, which 16 bits
// would not hold), tokenizer.json and tokenizer_config.json. Reads files of the architecture `llama`; the
// rows of q and k are put back from llama.cpp's order of rotary pairs to Hugging Face's. Throws Error(data)
// for what cannot be represented. The folder appears as a whole: a failed import leaves nothing. Beside the
// model lies qlora_import.json: the name and SHA-256 of the GGUF file. A folder that has it is an older
// import and is replaced; any other folder with content is refused (Error(usage)) and stays as it is.
void import_gguf(const Path& gguf, const Path& out_dir, const ImportProgress& = {});

}  // namespace qlora
