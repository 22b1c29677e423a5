#pragma once
// The options of generation, as `generate` and `chat` share them.

#include <string>

#include "experiments/cli/loaded_model.h"
#include "experiments/generation.h"

namespace CLI {
class App;
}

namespace qlora {

struct GenerationArguments {
  GenerationSettings settings;
  bool greedy = false;
};
void add_generation_options(CLI::App&, GenerationArguments&);
void add_decode_numerics_option(CLI::App&, ModelArguments&);
// The settings with a template's name in place of `auto`. Throws Error(usage) for values out of range and for
// unknown templates, Error(data) when the model has no template that is known.
GenerationSettings settings_of(const GenerationArguments&, const Tokenizer&);

}  // namespace qlora
