// qlora judge import, convert, reparse; run has a file of its own.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "eval/judge/layouts.h"
#include "experiments/cli/cli.h"
#include "experiments/judging.h"

namespace qlora {
namespace {

struct JudgeOptions {
  VoteSource source;
  std::string layout, parser, out;
};

int import(const Invocation& in, JudgeOptions& options) {
  options.source.db = in.db;
  const ImportReport r = import_votes(options.source);
  if (in.json) {
    const Json json = {
        {"files", r.files}, {"new_files", r.new_files}, {"votes", r.votes}, {"invalid", r.invalid}};
    fmt::print("{}\n", json.dump(1));
  } else {
    fmt::print("{}: {} files ({} of them new), {} votes, {} without a verdict\n", in.db, r.files, r.new_files,
               r.votes, r.invalid);
  }
  return 0;
}

int convert(const Invocation& in, JudgeOptions& options) {
  options.source.db = in.db;
  const std::vector<std::string> paths = convert_votes(options.source, options.layout, options.out);
  if (in.json)
    fmt::print("{}\n", Json(paths).dump(1));
  else
    for (const std::string& path : paths) fmt::print("{}\n", path);
  return 0;
}

int reparse_again(const Invocation& in, JudgeOptions& options) {
  options.source.db = in.db;
  const ReparseReport report = reparse_votes(options.source, options.parser, options.out);
  fmt::print("{}", in.json ? reparse_json(report).dump(1) + "\n" : print_reparse(report));
  return 0;
}

std::string known_layouts() {
  std::string text = "Layouts:";
  for (const JudgmentLayout& layout : layouts()) text += fmt::format("\n  {:<16} {}", layout.name, layout.about);
  return text;
}

std::string known_parsers() {
  std::string text = "Parsers:";
  for (const VerdictParser& parser : verdict_parsers())
    text += fmt::format("\n  {:<14} {}", parser.name, parser.about);
  return text;
}

}  // namespace

void add_judge_commands(CLI::App& app, Invocation& in) {
  CLI::App* judge =
      app.add_subcommand("judge", "judgments of answers: asked for, stored, converted, parsed again");
  judge->require_subcommand(1);
  judge->footer(
      group_footer("  qlora judge import judgments/\n  qlora judge run --judge model:DIR --questions q.jsonl "
                   "--answers red.jsonl blue.jsonl --out votes/"));
  auto options = std::make_shared<JudgeOptions>();
  auto add = [&](const char* name, const char* about, int (*work)(const Invocation&, JudgeOptions&)) {
    CLI::App* verb = judge->add_subcommand(name, about);
    verb->add_option("files", options->source.files, "judgment files of any layout, folders, patterns");
    verb->add_option("--answers", options->source.answers,
                     "generations (files, folders, patterns): who was shown first, by the answers' ids");
    add_db_option(*verb, in);
    add_json_flag(*verb, in);
    verb->callback([=, &in] { in.work = [=, &in] { return work(in, *options); }; });
    return verb;
  };
  add_judge_run_command(*judge, in);
  CLI::App* verb = add("import", "stores votes, whole, in the results store", import);
  verb->get_option("files")->required();
  verb->footer(known_layouts() + "\nExample:\n  qlora judge import judgments/ --db results.db");

  verb = add("convert", "writes votes (of files, or of the store) in another layout", convert);
  verb->add_option("--to", options->layout, "the layout to write")->required();
  verb->add_option("--out", options->out, "the folder to write into")->required();
  verb->footer(known_layouts() +
               "\nExample:\n  qlora judge convert gpt-4_pair.jsonl --to qlora --out release/");

  verb = add("reparse", "reads verdicts again from the judges' words, of files or of the store, offline",
             reparse_again);
  verb->add_option(
      "--parser", options->parser,
      "KIND-VERSION (default: of threeclass-3, fastchat-1 and scores-2 the one that reads the most)");
  verb->add_option("--out", options->out,
                   "a folder for the files with the recovered verdicts; none: only report");
  verb->footer(known_parsers() +
               "\nExample:\n  qlora judge reparse ratings/oa --parser threeclass-3 --out better/");
}

}  // namespace qlora
