#include "experiments/cli/generation_options.h"

#include <CLI/CLI.hpp>

#include "experiments/options.h"

namespace qlora {

void add_generation_options(CLI::App& app, GenerationArguments& arguments) {
  GenerationSettings& s = arguments.settings;
  std::string names;
  for (const ChatTemplate& t : chat_templates()) names += std::string(names.empty() ? "" : ", ") + t.name;
  app.add_option("--template", s.chat_template, "auto (or own: the model's), " + names);
  app.add_option("--system", s.system, "a system message, or the template's first sentences");
  app.add_flag("--greedy", arguments.greedy, "always the likeliest token");
  app.add_option("--temperature", s.sampling.temperature, "of sampling; 0: greedy")->capture_default_str();
  app.add_option("--top-p", s.sampling.top_p, "the nucleus: the likeliest tokens of this probability")
      ->capture_default_str();
  app.add_option("--top-k", s.sampling.top_k, "the k likeliest tokens; 0: all");
  app.add_option("--repetition-penalty", s.sampling.repetition_penalty, "as in transformers; 1: none");
  app.add_option("--max-new-tokens", s.max_new_tokens, "at most so many")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  app.add_option("--stop", s.stops, "a string that ends an answer, besides the template's; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--seed", s.seed, "of the random numbers (default 0)")->check(CLI::NonNegativeNumber);
}

void add_token_step_options(CLI::App& app, ModelArguments& model) {
  app.add_option(
         "--decode-numerics", model.decode_numerics,
         "of new tokens: fast (products of quantized weights in whole numbers, an 8-bit copy of the output "
         "head), or exact (as in scoring); default: as the adapter's run says, else fast")
      ->check(CLI::IsMember({"fast", "exact"}).description(""));
  std::vector<std::string> numbers = find_option("prompt_lookup_num_tokens")->choices;
  for (std::string& number : numbers) number = number.substr(0, number.find('='));  // of second spellings
  app.add_option(
         "--prompt-lookup-num-tokens", model.prompt_lookup_num_tokens,
         "auto, 0 or N up to 15: tokens that a step guesses from the text and reads beside the last one, at "
         "most (auto: as many as are measured to pay); changes no token, only the speed; a GPU guesses none; "
         "default: as the adapter's run says, else auto")
      ->check(CLI::IsMember(numbers, CLI::ignore_case).description(""))
      ->type_name("N");
}

void set_token_steps(GenerationSettings& settings, LoadedModel& loaded) {
  settings.decode_numerics = loaded.config().text("decode_numerics");
  settings.drafts = drafts(loaded.config());
  const Backend& backend = loaded.memory().backend();
  if (settings.drafts > 0 && !backend.host_memory())
    fmt::print(
        stderr,
        "prompt_lookup_num_tokens {}: no tokens are guessed on {}, where the bits of a row may depend on "
        "the number of rows\n",
        settings.drafts, backend.name());
}

GenerationSettings settings_of(const GenerationArguments& arguments, const Tokenizer& tokenizer) {
  GenerationSettings settings = arguments.settings;
  settings.chat_template = chat_template_for(tokenizer, settings.chat_template).name;
  if (arguments.greedy) settings.sampling.temperature = 0;
  check_sampling(settings.sampling);
  return settings;
}

}  // namespace qlora
