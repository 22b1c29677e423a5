// qlora chat.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>

#include "core/base/check.h"
#include "experiments/chat.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/generation_options.h"
#include "experiments/cli/loaded_model.h"

namespace qlora {
namespace {

struct ChatArguments {
  ModelArguments model;
  GenerationArguments generation;
};

void show(const std::string& piece) {
  std::fwrite(piece.data(), 1, piece.size(), stdout);
  std::fflush(stdout);
}

// One line of the user's; false: the end.
bool answer_line(Chat& chat, const std::string& line) {
  if (line == "/quit" || line == "/exit") return false;
  if (line.find_first_not_of(" \t\r") == std::string::npos) return true;
  if (line == "/reset") {
    chat.reset();
    fmt::print(stderr, "(a new conversation)\n");
    return true;
  }
  if (line[0] == '/') {
    fmt::print(stderr, "(unknown command {}; there are /reset and /quit)\n", line);
    return true;
  }
  const int64_t before = chat.forgotten();
  try {
    chat.say(line, show);
    show("\n");
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::usage) throw;
    fmt::print(stderr, "({})\n", e.what());  // too long: the conversation goes on without it
  }
  if (chat.forgotten() > before)
    fmt::print(stderr,
               "(the conversation is longer than the context: its oldest {} messages are forgotten)\n",
               chat.forgotten());
  return true;
}

int talk(const Invocation& in, const ChatArguments& arguments) {
  LoadedModel loaded(arguments.model, in.backend, in.threads);
  GenerationSettings settings = settings_of(arguments.generation, loaded.tokenizer());
  set_token_steps(settings, loaded);
  Chat chat({*loaded.model(), loaded.memory(), loaded.type(), loaded.tokenizer(), loaded.adapter()},
            settings);
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (terminal) fmt::print(stderr, "template {}; /reset begins anew, /quit ends\n", settings.chat_template);
  for (;;) {
    if (terminal) fmt::print(stderr, "> ");
    std::string line;
    if (!std::getline(std::cin, line) || !answer_line(chat, line)) return 0;
  }
}

}  // namespace

void add_chat_commands(CLI::App& app, Invocation& in) {
  auto arguments = std::make_shared<ChatArguments>();
  CLI::App* chat =
      app.add_subcommand("chat", "talk with a model, a line at a time, from a terminal or a pipe");
  add_model_options(*chat, arguments->model);
  add_generation_options(*chat, arguments->generation);
  add_token_step_options(*chat, arguments->model);
  add_compute_options(*chat, in);
  chat->footer(
      "Lines: /reset begins a new conversation, /quit ends.\nExamples:\n  qlora chat --model DIR --adapter "
      "DIR --template guanaco\n  echo \"What is an atom?\" | qlora chat --model DIR --greedy");
  chat->callback([=, &in] { in.work = [=, &in] { return talk(in, *arguments); }; });
}

}  // namespace qlora
