#include "experiments/cli/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "core/base/check.h"
#include "core/base/log.h"
#include "core/base/names.h"
#include "experiments/build_info.h"

namespace qlora {
namespace {

int complain(ErrorKind kind, const char* text) {
  fmt::print(stderr, "qlora: {}\n", text);
  return static_cast<int>(kind);
}

// The verbs below an app, for "did you mean".
std::vector<std::string> verbs_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App* s) { return !s->get_group().empty(); }))
    names.push_back(sub->get_name());
  return names;
}

// The deepest subcommand that was parsed.
const CLI::App& deepest(const CLI::App& app) {
  for (const CLI::App* sub : app.get_subcommands()) return deepest(*sub);
  return app;
}

// "qlora", "qlora sweep run".
std::string path_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? "qlora" : path_of(*app.get_parent()) + " " + app.get_name();
}

// CLI11 reports an unknown verb as a surplus word: say what is known instead.
int complain_usage(const CLI::App& app, const CLI::ParseError& error, char** argv, int argc) {
  const CLI::App& at = deepest(app);
  const std::string path = path_of(at);
  const std::vector<std::string> verbs = verbs_of(at);
  if (verbs.empty())
    return complain(ErrorKind::usage, fmt::format("{}; see {} -h", error.what(), path).c_str());
  auto depth = static_cast<int>(std::count(path.begin(), path.end(), ' ')) + 1;
  const std::string word = depth < argc ? argv[depth] : "";
  std::string text = fmt::format("{}: one of {}", path, fmt::join(verbs, ", "));
  if (!word.empty() && word[0] != '-') {
    std::vector<std::string> known;
    for (const std::string& verb : verbs) known.push_back(path + " " + verb);
    text = unknown_name("command", path + " " + word, known);
  }
  return complain(ErrorKind::usage, text.c_str());
}

}  // namespace

Invocation::Invocation() {
  const char* db_variable = std::getenv("QLORA_DB");
  db = db_variable != nullptr && *db_variable != '\0' ? db_variable : "results.db";
}

void add_db_option(CLI::App& app, Invocation& in) {
  app.add_option("--db", in.db, "the results store (default: $QLORA_DB, else results.db)");
}

void add_json_flag(CLI::App& app, Invocation& in) {
  app.add_flag("--json", in.json, "JSON on stdout");
}

void add_compute_options(CLI::App& app, Invocation& in) {
  app.add_option("--backend", in.backend, "auto, or one that `qlora doctor` lists");
  app.add_option("--threads", in.threads, "how many (default: all cores)")->check(CLI::Range(1, 4096));
}

std::string group_footer(const std::string& examples) {
  return "Examples:\n" + examples +
         "\nExit codes: 0 done, 1 something failed, 2 usage, 3 data, 4 memory, 5 a judge or its budget, "
         "130 stopped (Ctrl-C), 143 stopped (SIGTERM).";
}

int run_command_line(int argc, char** argv) {
  Invocation in;
  if (argc > 0) in.program = argv[0];
  CLI::App app("QLoRA finetuning, evaluation and ratings in one program.", "qlora");
  app.set_version_flag("--version", program_line());
  app.set_help_flag("-h,--help", "this text; also after every command");
  app.require_subcommand(1);
  app.footer(
      group_footer("  qlora sweep run experiments/configs/quickstart.yaml\n  qlora results leaderboard"));
  add_train_commands(app, in);
  add_model_commands(app, in);
  add_generate_commands(app, in);
  add_chat_commands(app, in);
  add_eval_commands(app, in);
  add_elo_commands(app, in);
  add_agreement_commands(app, in);
  add_judge_commands(app, in);
  add_results_commands(app, in);
  add_doctor_commands(app, in);
  add_measure_commands(app, in);
  set_log_sink([](LogLevel level, std::string_view text) {
    if (level == LogLevel::warning) fmt::print(stderr, "qlora: warning: {}\n", text);
  });
  // `eval A,B` is short for `eval tasks A,B`.
  std::vector<char*> words(argv, argv + argc);
  std::string tasks = "tasks";
  if (argc > 2 && words[1] == std::string_view("eval") &&
      std::string_view(words[2]).find(',') != std::string::npos)
    words.insert(words.begin() + 2, tasks.data());
  try {
    app.parse(static_cast<int>(words.size()), words.data());
    return in.work();
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // -h, --version
    return complain_usage(app, e, argv, argc);
  } catch (const Error& e) {
    return complain(e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return complain(ErrorKind::memory, "out of memory");
  } catch (const std::exception& e) {
    return complain(ErrorKind::failure, e.what());
  }
}

}  // namespace qlora
