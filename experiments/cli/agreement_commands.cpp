// qlora elo agree, bias, relative.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "experiments/agreement_tables.h"
#include "experiments/cli/cli.h"
#include "experiments/vote_source.h"

namespace qlora {
namespace {

struct AgreementOptions {
  VoteSource source;
  BootstrapOptions bootstrap;
  std::string reference = "gpt-3.5";
  bool published = false;
};

LoadedVotes load(const Invocation& in, AgreementOptions& options) {
  if (in.threads > 0) set_thread_count(in.threads);
  options.source.db = in.db;
  settle_systems(options.source.files, options.source.systems);
  return load_votes(options.source);
}

// JSON with the notes in it, or text with the notes below.
int show(const Invocation& in, const AgreementOptions& options, const LoadedVotes& votes, Json json,
         const std::string& text) {
  const std::string note = note_of(votes, options.source);
  json["note"] = note;
  json["bootstrap"] = options.bootstrap.resamples;
  json["seed"] = options.bootstrap.seed;
  fmt::print("{}", in.json ? json.dump(1) + "\n" : text + note);
  return 0;
}

int agree(const Invocation& in, AgreementOptions& options) {
  const LoadedVotes votes = load(in, options);
  const AgreementReport report = agreement(votes.files, options.bootstrap);
  return show(in, options, votes, agreement_json(report), print_agreement(report));
}

int bias(const Invocation& in, AgreementOptions& options) {
  const LoadedVotes votes = load(in, options);
  const std::vector<JudgeBias> all = judge_bias(votes.files, options.bootstrap);
  return show(in, options, votes, bias_json(all), print_bias(all));
}

int relative(const Invocation& in, AgreementOptions& options) {
  const LoadedVotes votes = load(in, options);
  const std::vector<RelativeScore> scores =
      relative_scores(votes.files, options.reference, options.bootstrap);
  return show(in, options, votes, relative_json(scores, options.reference, options.published),
              print_relative(scores, options.reference, options.published));
}

using Command = int (*)(const Invocation&, AgreementOptions&);

CLI::App* add_verb(CLI::App& elo, Invocation& in, const char* name, const char* about, Command work,
                   const std::shared_ptr<AgreementOptions>& options) {
  CLI::App* verb = elo.add_subcommand(name, about);
  VoteSource& source = options->source;
  verb->add_option("files", source.files,
                   "judgment files, folders, patterns; none: the votes of the store (--db)");
  verb->add_option("--answers", source.answers,
                   "generations (files, folders, patterns): who was shown first, by the answers' ids");
  verb->add_option("--systems", source.systems, "only votes between these: A,B or A B")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_option("--preset", source.preset, "only votes between the systems of a published tournament");
  verb->add_option("--parser", source.parser,
                   "of stored votes: the reading by this parser (see judge reparse)");
  verb->add_option("--bootstrap", options->bootstrap.resamples,
                   "resamples of the prompts for intervals; 0: none")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seed", options->bootstrap.seed, "of the resamples");
  verb->add_option("--threads", in.threads, "of this machine; no result depends on it")
      ->check(CLI::Range(1, 4096));
  add_db_option(*verb, in);
  add_json_flag(*verb, in);
  verb->callback([=, &in] { in.work = [=, &in] { return work(in, *options); }; });
  return verb;
}

}  // namespace

void add_agreement_commands(CLI::App& app, Invocation& in) {
  CLI::App& elo = *app.get_subcommand("elo");
  auto options = std::make_shared<AgreementOptions>();
  add_verb(elo, in, "agree", "how far judges and raters agree: kappa, alpha, tau, rho", agree, options)
      ->footer("Example:\n  qlora elo agree human/ gpt4/ --preset qlora-vicuna-human");
  add_verb(elo, in, "bias", "does the answer shown first win? swap consistency of every judge", bias, options)
      ->footer("Example:\n  qlora elo bias judgments/ --json");
  CLI::App* verb =
      add_verb(elo, in, "relative", "points relative to a reference system, in percent", relative, options);
  verb->add_option("--reference", options->reference, "the system that is 100%")->capture_default_str();
  verb->add_flag("--paper", options->published, "Table 6 of the QLoRA paper beside ours");
  verb->footer("Example:\n  qlora elo relative relative-gpt-3.5/ --paper");
}

}  // namespace qlora
