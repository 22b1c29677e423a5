// qlora model import, qlora generate.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/io/gguf_import.h"
#include "core/models/generate.h"
#include "core/text/chat_template.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/loaded_model.h"
#include "experiments/terminal.h"

namespace qlora {
namespace {

int import_model(const Invocation& in, const std::string& file, const std::string& folder) {
  {
    Progress progress(stderr, in.json, 5);
    import_gguf(file, folder, [&](size_t done, size_t all) {
      progress.phase("importing, MB", static_cast<int64_t>(done >> 20), static_cast<int64_t>(all >> 20));
    });
  }
  if (in.json) {
    fmt::print("{}\n", Json{{"model", folder}}.dump());
  } else {
    fmt::print("{}\n", folder);
  }
  return 0;
}

struct GenerateArguments {
  ModelArguments model;
  std::string prompt;
  bool chat = false, greedy = false;
  int64_t max_new_tokens = 256;
};

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, const GenerateArguments& arguments) {
  if (!arguments.chat) return tokenizer.encode(arguments.prompt, true);
  ChatMessage message{"user", arguments.prompt};
  return encode_chat(tokenizer, std::span(&message, 1), true);
}

int generate(const Invocation& in, const GenerateArguments& arguments) {
  LoadedModel loaded(arguments.model, in.backend, in.threads);
  std::vector<int32_t> context = encode_prompt(loaded.tokenizer(), arguments);
  QLORA_CHECK(!context.empty(), usage, "the prompt is empty");
  GenerateOptions options;
  options.max_new_tokens = arguments.max_new_tokens;
  options.numerics = decode_numerics(loaded.config());
  options.stop_ids = loaded.model()->config().eos_ids;
  if (int32_t eos = loaded.tokenizer().special().eos; eos >= 0) options.stop_ids.push_back(eos);
  StreamDecoder decoder(loaded.tokenizer());
  std::string text;
  auto show = [&](const std::string& piece) {
    text += piece;
    if (in.json) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  options.on_token = [&](size_t, int32_t token) {
    show(decoder.push(token));
    return true;
  };
  Prompt prompt{context, loaded.adapter()};
  std::vector<std::vector<int32_t>> answers =
      generate(*loaded.model(), loaded.memory(), loaded.type(), std::span(&prompt, 1), options);
  show(decoder.finish());
  if (in.json) {
    Json json = {{"prompt", arguments.prompt},
                 {"text", text},
                 {"prompt_ids", context},
                 {"ids", answers[0]},
                 {"decode_numerics", loaded.config().text("decode_numerics")}};
    fmt::print("{}\n", json.dump(1, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("\n");
  }
  return 0;
}

}  // namespace

void add_model_commands(CLI::App& app, Invocation& in) {
  CLI::App* model = app.add_subcommand("model", "model folders");
  model->require_subcommand(1);
  auto file = std::make_shared<std::string>(), folder = std::make_shared<std::string>();
  CLI::App* importer = model->add_subcommand("import", "make a Hugging Face folder of a GGUF file");
  importer->add_option("file", *file, "the GGUF file")->required();
  importer->add_option("out_dir", *folder, "the folder to write")->required();
  add_json_flag(*importer, in);
  importer->footer(
      "Examples:\n  qlora model import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2\n"
      "  qlora model import tiny.gguf models/tiny --json");
  importer->callback([=, &in] { in.work = [=, &in] { return import_model(in, *file, *folder); }; });

  add_model_show(*model, in);

  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* verb = app.add_subcommand("generate", "the model's answer to a prompt");
  add_model_options(*verb, arguments->model);
  verb->add_option("--prompt", arguments->prompt, "the text to go on from")->required();
  verb->add_flag("--greedy", arguments->greedy, "always the likeliest token (all that this build does)");
  verb->add_flag("--chat", arguments->chat, "put the prompt into the model's chat template");
  verb->add_option("--max-new-tokens", arguments->max_new_tokens, "at most so many")
      ->check(CLI::PositiveNumber);
  verb->add_option(
          "--decode-numerics", arguments->model.decode_numerics,
          "products of new tokens with 4-bit weights: fast (whole numbers), or exact (as in scoring); "
          "default: as the adapter's run says, else fast")
      ->check(CLI::IsMember({"fast", "exact"}));
  add_compute_options(*verb, in);
  add_json_flag(*verb, in);
  verb->footer(
      "Examples:\n  qlora generate --model DIR --prompt \"Once upon a time\" --greedy\n"
      "  qlora generate --model DIR --adapter DIR --chat --prompt \"What is an atom?\" --greedy");
  verb->callback([=, &in] { in.work = [=, &in] { return generate(in, *arguments); }; });
}

}  // namespace qlora
