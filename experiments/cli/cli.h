#pragma once
// The command line of the program `qlora`: one file per group of verbs. A group adds its subcommands to the
// parser; the one that was asked for leaves its work in `Invocation::work`.

#include <functional>
#include <string>
#include <vector>

#include "core/base/file.h"

namespace CLI {
class App;
}

namespace qlora {

struct Invocation {
  std::function<int()> work;  // returns the exit code
  // What many verbs share. Each verb adds those that it understands.
  std::string db;  // default: QLORA_DB, else results.db
  std::string backend = "auto";
  int threads = 0;
  bool json = false;
  std::string program = "qlora";  // as it was called
  Invocation();
};

void add_db_option(CLI::App&, Invocation&);
void add_json_flag(CLI::App&, Invocation&);
void add_compute_options(CLI::App&, Invocation&);  // --backend, --threads

// What stands below the help of a group of verbs: examples, a line each, and the exit codes.
std::string group_footer(const std::string& examples);

// key=value: `sets`, and the options of a run that are given as arguments (`--lora_r 8`, `--lora-r=8`), as
// qlora.py and transformers have them. REQUIRES: the app allows extras.
std::vector<std::string> assignments(const CLI::App&, std::vector<std::string> sets);

void add_train_commands(CLI::App&, Invocation&);          // train, sweep, worker
void add_model_commands(CLI::App&, Invocation&);          // model
void add_model_show(CLI::App& model, Invocation&);        // model show
void add_model_plan(CLI::App& model, Invocation&);        // model plan
void add_generate_commands(CLI::App&, Invocation&);       // generate
void add_chat_commands(CLI::App&, Invocation&);           // chat
void add_eval_commands(CLI::App&, Invocation&);           // eval
void add_task_commands(CLI::App& eval, Invocation&);      // below eval: list, and a verb for each task
void add_data_type_command(CLI::App& eval, Invocation&);  // eval datatypes
void add_elo_commands(CLI::App&, Invocation&);            // elo
void add_agreement_commands(CLI::App&, Invocation&);  // elo agree, bias, relative; after add_elo_commands()
void add_judge_run_command(CLI::App& judge, Invocation&);  // judge run
void add_judge_commands(CLI::App&, Invocation&);           // judge
void add_results_commands(CLI::App&, Invocation&);         // results
void add_doctor_commands(CLI::App&, Invocation&);          // doctor, version
void add_measure_commands(CLI::App&, Invocation&);         // profile, bench

// Parses and does; prints errors to stderr. Returns the exit code: 0, 1 something failed, 2 usage, 3 data, 4
// memory, 5 a judge or its budget, 130 and 143 stopped by SIGINT and SIGTERM.
int run_command_line(int argc, char** argv);

}  // namespace qlora
