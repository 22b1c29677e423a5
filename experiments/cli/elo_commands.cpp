// qlora elo compute.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "experiments/cli/cli.h"
#include "experiments/tournament.h"
#include "results/store.h"

namespace qlora {
namespace {

int compute(const Invocation& in, const TournamentSpec& spec, bool stored) {
  QLORA_CHECK(!spec.files.empty() || !spec.preset.empty(), usage, "give judgment files, or --preset");
  if (in.threads > 0) set_thread_count(in.threads);
  Tournament tournament(spec);
  EloReport report = tournament.rate();
  if (stored) Store::open(in.db).write_tournament(tournament.row(report));
  fmt::print("{}{}", in.json ? ratings_json(report, spec) : print_ratings(report), in.json ? "\n" : "");
  return 0;
}

}  // namespace

void add_elo_commands(CLI::App& app, Invocation& in) {
  CLI::App* elo = app.add_subcommand("elo", "ratings from pairwise judgments");
  elo->require_subcommand(1);
  auto spec = std::make_shared<TournamentSpec>();
  CLI::App* verb = elo->add_subcommand("compute", "Elo ratings, averaged over many orders of the matches");
  verb->add_option("files", spec->files,
                   "judgment files (A-vs-B-JUDGE-reviewer-threeclass.jsonl), folders, patterns");
  verb->add_option("--preset", spec->preset,
                   "a published tournament: its counts, or with files its systems and K");
  verb->add_option("--k", spec->k, "step of an update (default: the preset's, else 32)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--orders", spec->orders, "random orders")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000'000}));
  verb->add_option("--bootstrap", spec->bootstrap, "resamples of the prompts for an interval; 0: none")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--votes", spec->votes, "several votes on a question: each, or majority")
      ->check(CLI::IsMember({"each", "majority"}));
  verb->add_option("--systems", spec->systems, "only matches between these")->delimiter(',');
  verb->add_option("--seed", spec->seed, "of the orders")->check(CLI::NonNegativeNumber);
  verb->add_option("--threads", in.threads)->check(CLI::Range(1, 4096));
  CLI::Option* name = verb->add_option("--name", spec->name, "store the ratings under this name, in --db");
  add_db_option(*verb, in);
  add_json_flag(*verb, in);
  verb->footer(
      "Examples:\n  qlora elo compute --preset qlora-vicuna-gpt4\n"
      "  qlora elo compute judgments/*.jsonl.gz --k 4 --orders 10000 --bootstrap 1000 --json");
  verb->callback([=, &in] { in.work = [=, &in] { return compute(in, *spec, name->count() > 0); }; });
}

}  // namespace qlora
