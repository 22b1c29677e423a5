// qlora elo compute, table, matrix, plan, presets: ratings from pairwise judgments.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/base/parallel.h"
#include "eval/ratings/judging_plan.h"
#include "eval/ratings/plots.h"
#include "eval/ratings/presets.h"
#include "eval/ratings/win_matrix.h"
#include "experiments/cli/cli.h"
#include "experiments/table_7.h"
#include "experiments/tournament.h"
#include "experiments/vote_source.h"
#include "results/store.h"
#include "results/table.h"

namespace qlora {
namespace {

// What is rated, and by which method.
struct Source {
  TournamentSpec spec;
  std::string parser;  // of stored votes
};

// The stored votes where they are the source: without files, and without counts of a preset unless
// --stored. A parser chooses among their readings alone.
std::optional<std::vector<JudgmentFile>> votes_of_store(const Invocation& in, Source& source) {
  TournamentSpec& spec = source.spec;
  settle_systems(spec.files, spec.systems);
  QLORA_CHECK(spec.files.empty() || !spec.stored, usage,
              "--stored takes the store's votes: give no files too");
  const bool counts = !spec.preset.empty() && !preset(spec.preset).counts.empty();
  // Without a store, a preset says itself what it needs.
  if (spec.files.empty() && !counts && (spec.preset.empty() || std::filesystem::exists(in.db)))
    spec.stored = true;
  if (spec.stored) return stored_votes(in.db, source.parser);
  QLORA_CHECK(source.parser.empty(), usage,
              "--parser chooses among readings of stored votes; for files, see `qlora judge reparse`");
  return std::nullopt;
}

TournamentMatches matches_of(const Invocation& in, Source& source) {
  auto votes = votes_of_store(in, source);
  return votes ? load_matches(source.spec, std::move(*votes)) : load_matches(source.spec);
}

void print(const Invocation& in, const Json& json, const std::string& text) {
  fmt::print("{}", in.json ? json.dump(1) + "\n" : text);
}
void print_noted(const Invocation& in, Json json, const std::string& text, const std::string& note) {
  json["note"] = note;
  print(in, json, note.empty() ? text : text + note + "\n");
}

// ---- compute

struct ComputeArguments {
  Source source;
  std::string svg;
  bool stored = false;
};

int compute(const Invocation& in, ComputeArguments& arguments) {
  const TournamentSpec& spec = arguments.source.spec;
  if (in.threads > 0) set_thread_count(in.threads);
  auto votes = votes_of_store(in, arguments.source);
  const Tournament tournament = votes ? Tournament(spec, std::move(*votes)) : Tournament(spec);
  TournamentRatings ratings = tournament.rate();
  if (arguments.stored) Store::open(in.db).write_tournament(tournament.row(ratings));
  if (!arguments.svg.empty())
    write_file(arguments.svg,
               ratings_svg(ratings.report(), spec.name.empty() ? ratings.model() + " ratings" : spec.name));
  fmt::print("{}{}", in.json ? ratings_json(ratings, spec) : print_ratings(ratings), in.json ? "\n" : "");
  return 0;
}

// ---- matrix

struct MatrixArguments {
  Source source;
  std::string show = "net", svg;
};

std::string shown(const WinCell& cell, const std::string& what) {
  if (cell.games() == 0) return "";
  if (what == "net") return fmt::format("{:.2f}", cell.net());
  if (what == "rate") return fmt::format("{:.3f}", cell.rate());
  if (what == "counts") return fmt::format("{}/{}/{}", cell.wins, cell.losses, cell.ties);
  ShareInterval wilson = cell.wilson();
  return fmt::format("{:.2f}-{:.2f}", wilson.lo, wilson.hi);
}

std::string matrix_text(const WinMatrix& matrix, const std::string& what) {
  Table table;
  table.columns = {"", "mean rate"};
  for (const std::string& system : matrix.systems) table.columns.push_back(system);
  for (size_t a = 0; a < matrix.systems.size(); ++a) {
    std::optional<double> mean = matrix.mean_rate[a];
    std::vector<Value> row = {matrix.systems[a], mean ? fmt::format("{:.3f}", *mean) : std::string()};
    for (const WinCell& cell : matrix.cells[a]) row.emplace_back(shown(cell, what));
    table.rows.push_back(std::move(row));
  }
  static const std::map<std::string, std::string> kMeaning = {
      {"net", "(wins - losses) / matches"},
      {"rate", "(wins + ties / 2) / matches"},
      {"counts", "wins/losses/ties"},
      {"wilson", "Wilson's 95% interval of (wins + ties / 2) / matches, as if matches were independent"}};
  return render_text(table) + "row against column, both orders: " + kMeaning.at(what) + "\n";
}

Json matrix_json(const WinMatrix& matrix) {
  Json pairs = Json::array();
  for (size_t a = 0; a < matrix.systems.size(); ++a)
    for (size_t b = 0; b < matrix.systems.size(); ++b) {
      const WinCell& cell = matrix.cells[a][b];
      if (cell.games() == 0) continue;
      ShareInterval wilson = cell.wilson();
      pairs.push_back({{"system", matrix.systems[a]},
                       {"against", matrix.systems[b]},
                       {"wins", cell.wins},
                       {"losses", cell.losses},
                       {"ties", cell.ties},
                       {"net", cell.net()},
                       {"rate", cell.rate()},
                       {"decisive", cell.wins + cell.losses > 0 ? Json(cell.decisive()) : Json(nullptr)},
                       {"wilson_lo", wilson.lo},
                       {"wilson_hi", wilson.hi}});
    }
  Json means = Json::object();
  for (size_t a = 0; a < matrix.systems.size(); ++a)
    means[matrix.systems[a]] = matrix.mean_rate[a] ? Json(*matrix.mean_rate[a]) : Json(nullptr);
  return {{"systems", matrix.systems}, {"mean_rate", means}, {"pairs", pairs}};
}

int matrix(const Invocation& in, MatrixArguments& arguments) {
  const TournamentMatches loaded = matches_of(in, arguments.source);
  const WinMatrix found = win_matrix(loaded.matches);
  if (!arguments.svg.empty()) write_file(arguments.svg, win_rates_svg(found, "win rates"));
  print_noted(in, matrix_json(found), matrix_text(found, arguments.show), loaded.note);
  return 0;
}

// ---- plan

struct PlanArguments {
  Source source;
  std::vector<std::string> more;
  double prior_sd = 400;
  int64_t count = 10;
};

int plan(const Invocation& in, PlanArguments& arguments) {
  PlanOptions options;
  options.model = model_options(arguments.source.spec);
  options.prior_sd = arguments.prior_sd;
  options.count = arguments.count;
  const TournamentMatches loaded = matches_of(in, arguments.source);
  const JudgingPlan found = plan_judging(loaded.matches, arguments.more, options);
  Table table;
  table.columns = {"next",     "shown first", "shown second",        "bits",
                   "expected", "judged",      "judged the other way"};
  Json list = Json::array();
  for (const PlannedMatch& m : found.matches) {
    table.rows.push_back({static_cast<int64_t>(table.rows.size()) + 1, m.first, m.second, m.bits,
                          fmt::format("{:.2f}/{:.2f}/{:.2f}", m.first_wins, m.tie, m.second_wins), m.judged,
                          m.judged_other_order});
    list.push_back({{"first", m.first},
                    {"second", m.second},
                    {"bits", m.bits},
                    {"first_wins", m.first_wins},
                    {"tie", m.tie},
                    {"second_wins", m.second_wins},
                    {"judged", m.judged},
                    {"judged_other_order", m.judged_other_order}});
  }
  TextStyle style;
  style.decimals = 6;  // of bits
  std::string text =
      render_text(table, style) +
      fmt::format(
          "expected: first wins / tie / second wins. Two ratings differ by {:.1f} points give or take "
          "before (mean over pairs, as if matches were independent), {:.1f} after these matches.\n",
          found.before, found.after);
  print_noted(in, {{"matches", list}, {"deviation_before", found.before}, {"deviation_after", found.after}},
              text, loaded.note);
  return 0;
}

// ---- table, presets

struct TableArguments {
  Source source;
  Table7Spec spec;  // what the source does not say
};

int table(const Invocation& in, TableArguments& arguments) {
  if (in.threads > 0) set_thread_count(in.threads);
  Table7Spec& spec = arguments.spec;
  TournamentSpec& source = arguments.source.spec;
  settle_systems(source.files, source.systems);
  const bool by_column = !spec.human.empty() || !spec.gpt4.empty() || !spec.oa.empty();
  QLORA_CHECK(!by_column || (source.files.empty() && !source.stored), usage,
              "--human, --gpt4 and --oa give a column's files: give no other votes too");
  spec.preset = source.preset.empty() && by_column ? "qlora" : source.preset;
  if (!source.files.empty()) {
    QLORA_CHECK(arguments.source.parser.empty(), usage,
                "--parser chooses among readings of stored votes; for files, see `qlora judge reparse`");
    spec.votes = load_judgments(source.files);
  } else if (source.stored || spec.preset.empty()) {
    QLORA_CHECK(
        source.stored || std::filesystem::exists(in.db), data,
        "{}: there is no such results store; give judgment files, store some (qlora judge import), or "
        "take --preset qlora: the paper's own counts",
        in.db);
    spec.votes = stored_votes(in.db, arguments.source.parser);
  }
  spec.systems = source.systems;
  spec.only_by = source.only_by;
  spec.rule = source.votes;
  if (source.orders > 0) spec.orders = source.orders;
  spec.seed = source.seed;
  const Table7 found = compute_table_7(spec);
  print(in, to_json(found), render_text(found));
  return 0;
}

int list_presets(const Invocation& in) {
  Table table;
  table.columns = {"preset", "model", "k", "votes", "interval", "files", "about"};
  for (const Preset& p : presets()) {
    Value k;
    if (p.model == "elo") k = p.k;
    table.rows.push_back({std::string(p.name), std::string(p.model), k, std::string(p.votes),
                          fmt::format("{} ({})", p.interval, p.cluster),
                          std::string(p.counts.empty() ? "needed" : "not needed"), std::string(p.about)});
  }
  TextStyle style;
  style.max_width = 0;
  fmt::print("{}{}", in.json ? render_json(table) : render_text(table, style), in.json ? "\n" : "");
  return 0;
}

// ---- the parser

void add_source_options(CLI::App& verb, Source& source, Invocation& in) {
  TournamentSpec& spec = source.spec;
  verb.add_option("files", spec.files,
                  "judgment files, folders, patterns; none, and no preset's counts: the store's votes");
  verb.add_option("--preset", spec.preset, "settings by name (qlora elo presets), some with a tournament");
  verb.add_option("--votes", spec.votes, "several votes on a question: each, or majority")
      ->check(CLI::IsMember({"each", "majority"}));
  verb.add_option("--systems", spec.systems, "only matches between these: A,B or A B")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb.add_flag("--stored", spec.stored, "the store's votes, also where the preset has counts");
  verb.add_option("--judge", spec.only_by, "only votes by this judge (default: all, together)");
  verb.add_option("--parser", source.parser, "of stored votes: whose reading of them");
  add_db_option(verb, in);
}

void add_model_options(CLI::App& verb, TournamentSpec& spec, const std::vector<std::string>& models) {
  verb.add_option("--model", spec.model,
                  fmt::format("how strengths are found{} (bt: Bradley-Terry; default: {})",
                              models.front() == "elo" ? ": online Elo, or the likeliest" : "",
                              spec.model.empty() ? "the preset's, else elo" : spec.model))
      ->check(CLI::IsMember(models));
  verb.add_option("--position", spec.position, "fit what being shown first is worth: none, shared, judge")
      ->check(CLI::IsMember({"none", "shared", "judge"}));
}

void add_compute(CLI::App& elo, Invocation& in) {
  auto arguments = std::make_shared<ComputeArguments>();
  TournamentSpec& spec = arguments->source.spec;
  CLI::App* verb = elo.add_subcommand("compute", "ratings, with intervals of the data");
  add_source_options(*verb, arguments->source, in);
  add_model_options(*verb, spec, {"elo", "bt", "rao-kupper", "davidson"});
  verb->add_option("--ties", spec.ties, "half a win of each (elo, bt), or drop")
      ->check(CLI::IsMember({"half", "drop"}));
  verb->add_option("--k", spec.k, "elo: step of an update (default: the preset's, else 32)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--orders", spec.orders, "elo: random orders (default 10000)")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000'000}).description("UP TO 1E8"));
  verb->add_option("--rounds", spec.rounds,
                   "elo: an order is a shuffle (default), or a bootstrap (with replacement)")
      ->check(CLI::IsMember({"shuffle", "bootstrap"}));
  verb->add_option("--anchor", spec.anchors, "mean=RATING (default 1000), or SYSTEM=RATING; may be repeated")
      ->allow_extra_args(false);
  verb->add_option("--answers", spec.answers,
                   "control for the lengths of these answers (a file, folder, pattern; AlpacaEval: its "
                   "outputs or annotations)")
      ->allow_extra_args(false);
  verb->add_option("--interval", spec.interval, "of the data: bootstrap, sandwich, none")
      ->check(CLI::IsMember({"none", "bootstrap", "sandwich"}));
  verb->add_option("--cluster", spec.cluster, "what is drawn as one: prompt, or battle (too narrow)")
      ->check(CLI::IsMember({"prompt", "battle"}));
  verb->add_option("--bootstrap", spec.bootstrap, "draws (default 1000, elo 200); 0: no interval")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seed", spec.seed, "of orders and draws (default 0)")->check(CLI::NonNegativeNumber);
  verb->add_option("--threads", in.threads, "of this machine; no result depends on it")
      ->check(CLI::Range(1, 4096).description("UP TO 4096"));
  verb->add_option("--svg", arguments->svg, "draw the ratings into this file");
  CLI::Option* name = verb->add_option("--name", spec.name, "store the ratings under this name, in --db");
  add_json_flag(*verb, in);
  verb->footer(
      "Examples:\n"
      "  qlora elo compute judgments/*.jsonl.gz --model bt --position judge --svg ratings.svg");
  verb->callback([=, &in] {
    arguments->stored = name->count() > 0;
    in.work = [=, &in] { return compute(in, *arguments); };
  });
}

void add_matrix(CLI::App& elo, Invocation& in) {
  auto arguments = std::make_shared<MatrixArguments>();
  CLI::App* verb = elo.add_subcommand("matrix", "who won against whom");
  add_source_options(*verb, arguments->source, in);
  verb->add_option("--show", arguments->show, "net, rate, counts, wilson (--json has all)")
      ->check(CLI::IsMember({"net", "rate", "counts", "wilson"}));
  verb->add_option("--svg", arguments->svg, "draw a heat map of win rates into this file");
  add_json_flag(*verb, in);
  verb->footer(
      "Examples:\n  qlora elo matrix --preset qlora-vicuna-gpt4\n  qlora elo matrix judgments/ --svg "
      "heat.svg");
  verb->callback([=, &in] { in.work = [=, &in] { return matrix(in, *arguments); }; });
}

void add_plan(CLI::App& elo, Invocation& in) {
  auto arguments = std::make_shared<PlanArguments>();
  TournamentSpec& spec = arguments->source.spec;
  spec.model = "bt";
  CLI::App* verb = elo.add_subcommand("plan", "which pairs to judge next for the most information");
  add_source_options(*verb, arguments->source, in);
  add_model_options(*verb, spec, {"bt", "rao-kupper", "davidson"});
  verb->add_option("--new", arguments->more, "systems that have no match yet")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_option("--count", arguments->count, "matches to plan")->check(CLI::PositiveNumber);
  verb->add_option("--prior-sd", arguments->prior_sd, "rating points that systems differ by before any match")
      ->check(CLI::PositiveNumber);
  add_json_flag(*verb, in);
  verb->footer("Examples:\n  qlora elo plan judgments/ --new my-model --count 20");
  verb->callback([=, &in] { in.work = [=, &in] { return plan(in, *arguments); }; });
}

void add_table(CLI::App& elo, Invocation& in) {
  auto arguments = std::make_shared<TableArguments>();
  TournamentSpec& source = arguments->source.spec;
  Table7Spec& spec = arguments->spec;
  CLI::App* verb = elo.add_subcommand(
      "table", "Elo by judge, the paper's figures beside ours where it has them; its Table 7");
  add_source_options(*verb, arguments->source, in);
  verb->get_option("--preset")
      ->description(
          "qlora: the columns of the QLoRA paper's Table 7, of its counts; or one of its columns' presets");
  verb->add_option("--human", spec.human, "files of human votes, instead of the counts");
  verb->add_option("--gpt4", spec.gpt4,
                   "files of GPT-4's verdicts on the Vicuna prompts, instead of the counts");
  verb->add_option("--oa", spec.oa, "files of GPT-4's verdicts on the OpenAssistant prompts");
  verb->add_option("--orders", source.orders, "random orders (default 10000)")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000'000}).description("UP TO 1E8"));
  verb->add_option("--seed", source.seed, "of the orders (default 0)")->check(CLI::NonNegativeNumber);
  verb->add_option("--threads", in.threads, "of this machine; no result depends on it")
      ->check(CLI::Range(1, 4096).description("UP TO 4096"));
  add_json_flag(*verb, in);
  verb->footer(
      "Examples:\n  qlora elo table --preset qlora\n  qlora elo table judgments/\n  qlora elo table --db "
      "results.db");
  verb->callback([=, &in] { in.work = [=, &in] { return table(in, *arguments); }; });
}

}  // namespace

void add_elo_commands(CLI::App& app, Invocation& in) {
  CLI::App* elo = app.add_subcommand("elo", "ratings from pairwise judgments");
  elo->require_subcommand(1);
  elo->footer(
      group_footer("  qlora elo compute judgments/ --model bt\n  qlora elo table --preset qlora\n"
                   "  qlora elo bias judgments/"));
  add_compute(*elo, in);
  add_table(*elo, in);
  add_matrix(*elo, in);
  add_plan(*elo, in);
  CLI::App* verb = elo->add_subcommand("presets", "settings and tournaments that are known by name");
  add_json_flag(*verb, in);
  verb->footer("Examples:\n  qlora elo presets");
  verb->callback([&in] { in.work = [&in] { return list_presets(in); }; });
}

}  // namespace qlora
