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
void add_token_step_options(CLI::App&, ModelArguments&);
// How the steps are done that follow prompts, as the model's configuration says. Where it asks for drafts of
// a backend that makes none, one line on stderr says so.
void set_token_steps(GenerationSettings&, LoadedModel&);
// The settings with a template's name in place of `auto`. Throws Error(usage) for values out of range and for
// unknown templates, Error(data) when the model has no template that is known.
GenerationSettings settings_of(const GenerationArguments&, const Tokenizer&);

}  // namespace qlora
