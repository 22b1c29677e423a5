#include "experiments/tournament.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "core/base/json.h"
#include "eval/judge/answer_ids.h"
#include "eval/ratings/answer_lengths.h"
#include "eval/ratings/presets.h"
#include "experiments/stored_votes.h"

namespace qlora {
namespace {

// A specification with what its preset says filled in.
struct Settings {
  std::string model = "elo", votes = "each", interval = "bootstrap", cluster = "prompt";
  double k = 32;
  int64_t draws = 0, orders = 10'000;
  std::string rounds = "shuffle";
};

Settings settings_of(const TournamentSpec& spec) {
  Settings s;
  if (!spec.preset.empty()) {
    const Preset& p = preset(spec.preset);
    s = {std::string(p.model),
         std::string(p.votes),
         std::string(p.interval),
         std::string(p.cluster),
         p.k,
         p.draws};
    if (spec.files.empty() && !spec.stored && spec.cluster.empty() && s.cluster == "prompt" &&
        spec.bootstrap <= 0)
      s.interval = "none";  // counts have no prompts
  }
  if (!spec.model.empty()) s.model = spec.model;
  if (!spec.votes.empty()) s.votes = spec.votes;
  if (!spec.interval.empty()) s.interval = spec.interval;
  if (!spec.cluster.empty()) s.cluster = spec.cluster;
  if (spec.k > 0) s.k = spec.k;
  if (spec.orders > 0) s.orders = spec.orders;
  if (!spec.rounds.empty()) s.rounds = spec.rounds;
  if (spec.bootstrap >= 0) s.draws = spec.bootstrap;
  if (spec.bootstrap == 0 && s.interval == "bootstrap") s.interval = "none";
  if (spec.bootstrap < 0 && s.draws == 0) s.draws = s.model == "elo" ? 200 : 1000;
  return s;
}

EloOptions elo_options(const TournamentSpec& spec, const Settings& s) {
  QLORA_CHECK(s.interval != "sandwich", usage,
              "online Elo has no likelihood and so no sandwich: use --interval bootstrap, or --model bt");
  QLORA_CHECK(
      spec.position == "none" && spec.anchors.empty() && spec.answers.empty(), usage,
      "online Elo has no position term, anchors or length control: use --model bt, rao-kupper or davidson");
  EloOptions o;
  o.k = s.k;
  o.orders = s.orders;
  o.rounds = rounds_from(s.rounds);
  o.drop_ties = spec.ties == "drop";
  o.bootstrap = s.interval == "bootstrap" ? s.draws : 0;
  o.cluster = cluster_from(s.cluster);
  o.seed = static_cast<uint64_t>(spec.seed);
  return o;
}

// Where a name stands that the specification says: "s.yaml:7:20: `systems`", or the option.
std::string place_of(const std::vector<Where>& places, size_t i, const char* key, const char* option) {
  return i < places.size() ? fmt::format("{}: `{}`", places[i].text(), key) : option;
}
std::string anchor_place(const TournamentSpec& spec, size_t i) {
  return place_of(spec.anchor_places, i, "anchors", "--anchor");
}

constexpr std::string_view kMean = "mean";  // an anchor of this name is that of all systems

// mean=1000, or a system's name and rating.
Anchor anchor_of(const TournamentSpec& spec, size_t i) {
  const std::string& text = spec.anchors[i];
  size_t cut = text.rfind('=');
  Anchor anchor;
  const char* end = text.data() + text.size();
  auto [stop, error] =
      std::from_chars(text.data() + (cut == std::string::npos ? 0 : cut + 1), end, anchor.rating);
  QLORA_CHECK(cut != std::string::npos && cut > 0 && error == std::errc() && stop == end, usage,
              "{}: an anchor must be mean=RATING or SYSTEM=RATING, not `{}`", anchor_place(spec, i), text);
  anchor.system = text.substr(0, cut);
  return anchor;
}

ModelOptions fitted_options(const TournamentSpec& spec, const Settings& s) {
  QLORA_CHECK(
      spec.k <= 0 && spec.orders == 0 && spec.rounds.empty(), usage,
      "K, orders and rounds are online Elo's, and {} has none of them: leave them out, or use --model "
      "elo",
      s.model);
  ModelOptions o;
  o.model = rating_model_from(s.model);
  o.drop_ties = spec.ties == "drop";
  o.position = position_from(spec.position);
  o.length = !spec.answers.empty();
  for (size_t i = 0; i < spec.anchors.size(); ++i) {
    Anchor anchor = anchor_of(spec, i);
    if (anchor.system == kMean)
      o.initial = anchor.rating;
    else
      o.anchors.push_back({system_alias(anchor.system), anchor.rating});
  }
  o.interval = interval_from(s.interval);
  o.cluster = cluster_from(s.cluster);
  o.draws = s.draws;
  o.seed = static_cast<uint64_t>(spec.seed);
  return o;
}

// What the ratings depend on besides the files, as JSON with sorted keys.
Json parameters(const TournamentSpec& spec, const Settings& s, const std::vector<std::string>& systems) {
  Json params = {{"model", s.model}, {"votes", s.votes}, {"ties", spec.ties}, {"seed", spec.seed}};
  if (s.model == "elo") {
    params.update({{"k", s.k}, {"orders", s.orders}, {"rounds", s.rounds}});
  } else {
    params.update({{"position", spec.position}, {"anchors", spec.anchors}});
    if (!spec.answers.empty()) params["length"] = true;
  }
  params["interval"] = s.interval;
  if (s.interval != "none") params["cluster"] = s.cluster;
  params["bootstrap"] = s.interval == "bootstrap" ? s.draws : 0;
  if (!spec.preset.empty()) params["preset"] = spec.preset;
  if (!systems.empty()) params["systems"] = systems;
  if (!spec.only_by.empty()) params["only_by"] = spec.only_by;
  return params;
}

std::vector<std::string> chosen_systems(const TournamentSpec& spec) {
  if (!spec.systems.empty() || spec.preset.empty()) return spec.systems;
  const Preset& known = preset(spec.preset);
  return {known.systems.begin(), known.systems.end()};
}

void check_systems(const TournamentSpec& spec, const KnownSystems& known) {
  for (size_t i = 0; i < spec.systems.size(); ++i)
    find_system(known, spec.systems[i], place_of(spec.system_places, i, "systems", "--systems"));
}

// Anchors are of systems that take part.
void check_anchors(const TournamentSpec& spec, const KnownSystems& known) {
  for (size_t i = 0; i < spec.anchors.size(); ++i)
    if (Anchor anchor = anchor_of(spec, i); anchor.system != kMean)
      find_system(known, anchor.system, anchor_place(spec, i));
}

// The systems of matches, and where each stands: in files, or in the preset of the counts.
KnownSystems systems_of(const TournamentSpec& spec, const TournamentMatches& loaded) {
  const KnownSystems all = known_systems(loaded.files);
  KnownSystems known;
  for (const std::string& system : loaded.matches.systems)
    known[system] = loaded.files.empty() ? "preset " + spec.preset : all.at(system);
  return known;
}

// Whom a preset leaves out of the files.
std::string left_out(const TournamentSpec& spec, std::span<const JudgmentFile> files) {
  std::vector<std::string> chosen = chosen_systems(spec);
  if (spec.preset.empty() || chosen.empty() || !spec.systems.empty()) return "";
  std::set<std::string> others;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes)
      for (const std::string& name : {vote.first, vote.second})
        if (vote.pairwise() && std::find(chosen.begin(), chosen.end(), name) == chosen.end())
          others.insert(name);
  if (others.empty()) return "";
  std::string names;
  for (const std::string& name : others) names += (names.empty() ? "" : ", ") + name;
  return fmt::format("Left out, because preset {} does without: {}.", spec.preset, names);
}

std::vector<Path> answer_paths(const TournamentSpec& spec) {
  std::vector<Path> paths;
  for (const std::string& text : spec.answers)
    for (Path& path : find_answer_files(text)) paths.push_back(std::move(path));
  return paths;
}

std::string place_of_vote(std::span<const JudgmentFile> files, const std::string& system,
                          const std::string& item) {
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes)
      if (vote.item == item && (vote.first == system || vote.second == system))
        return fmt::format("{}:{}", file.path, vote.line);
  fail(ErrorKind::failure, "no vote on {} of {}", item, system);
}

TournamentMatches matches_of_votes(const TournamentSpec& spec, std::vector<JudgmentFile> votes) {
  TournamentMatches out;
  out.files = spec.only_by.empty() ? std::move(votes) : only_by(votes, spec.only_by);
  check_systems(spec, known_systems(out.files));
  warn_of_two_answers(out.files);
  out.matches = gather_matches(out.files, vote_rule_from(settings_of(spec).votes), chosen_systems(spec),
                               "preset " + spec.preset);
  out.note = left_out(spec, out.files);
  if (out.matches.judges.size() > 1)
    out.note += fmt::format("{}Votes of {} judges count together: {} (--judge takes those of one).",
                            out.note.empty() ? "" : " ", out.matches.judges.size(),
                            fmt::join(out.matches.judges, ", "));
  if (!spec.answers.empty())
    add_answer_lengths(out.matches, answer_paths(spec),
                       [&](const std::string& system, const std::string& item) {
                         return place_of_vote(out.files, system, item);
                       });
  return out;
}

}  // namespace

TournamentMatches load_matches(const TournamentSpec& spec, std::vector<JudgmentFile> votes) {
  check_claims(votes);
  return matches_of_votes(spec, std::move(votes));
}

TournamentMatches load_matches(const TournamentSpec& spec) {
  TournamentMatches out;
  Settings s = settings_of(spec);
  if (spec.files.empty()) {
    const Preset& known = preset(spec.preset);
    QLORA_CHECK(spec.only_by.empty(), usage,
                "preset {}: its counts are of one judge; give files to choose one", known.name);
    QLORA_CHECK(
        spec.answers.empty(), usage,
        "preset {}: counts have no prompts, so lengths of answers cannot be controlled for; give the files",
        known.name);
    out.matches = matches_of(known);
    QLORA_CHECK(s.interval == "none" || s.cluster == "battle", usage,
                "preset {}: counts have no prompts, so there is no bootstrap over prompts; give the files",
                known.name);
    QLORA_CHECK(
        spec.systems.empty() && s.votes == known.votes, usage,
        "preset {}: its counts are rated as published, for all systems; to choose systems or how votes "
        "count, give the files",
        known.name);
    out.note = note_of(known);
    if (s.interval == "none") out.note += " Counts have no prompts, so there is no interval of the data.";
  } else {
    return matches_of_votes(spec, load_judgments(spec.files));
  }
  return out;
}

ModelOptions model_options(const TournamentSpec& spec) {
  return fitted_options(spec, settings_of(spec));
}

const RatingReport& TournamentRatings::report() const {
  return elo ? static_cast<const RatingReport&>(*elo) : *fitted;
}

std::string TournamentRatings::model() const {
  return elo ? "elo" : rating_model_name(fitted->options.model);
}

void check_options(const TournamentSpec& spec) {
  const Settings s = settings_of(spec);
  if (s.model == "elo") {
    elo_options(spec, s);
  } else {
    fitted_options(spec, s);
  }
}

void check_named_systems(const TournamentSpec& spec, const KnownSystems& known) {
  check_systems(spec, known);
  check_anchors(spec, known);
}

Tournament::Tournament(const TournamentSpec& spec)
    : Tournament(spec, (check_options(spec), load_matches(spec))) {}

Tournament::Tournament(const TournamentSpec& spec, std::vector<JudgmentFile> votes)
    : Tournament(spec, (check_options(spec), load_matches(spec, std::move(votes)))) {}

Tournament::Tournament(const TournamentSpec& spec, TournamentMatches loaded) : loaded_(std::move(loaded)) {
  Settings s = settings_of(spec);
  if (s.model == "elo") {
    elo_ = elo_options(spec, s);
  } else {
    fitted_ = fitted_options(spec, s);
    check_anchors(spec, systems_of(spec, loaded_));
  }
  row_.name = spec.name;
  row_.method = s.model;
  row_.params_json = canonical(parameters(spec, s, chosen_systems(spec)));
  row_.invalid = loaded_.matches.invalid_rows;
  std::string identity = s.model + " " + spec.name + "\n" + row_.params_json;
  for (const JudgmentFile& file : loaded_.files) {
    identity += "\n" + hex(file.content);
    if (!file.votes.empty()) identity += " " + file.votes[0].first + " " + file.votes[0].second;
    row_.files.push_back(vote_file(file));
  }
  for (const Path& path : answer_paths(spec)) identity += "\nanswers " + hex(sha256(read_file(path)));
  row_.key = sha256(identity);
}

std::map<size_t, Tournament> read_tournaments_of(std::span<const TournamentSpec> specs) {
  std::map<size_t, Tournament> tournaments;
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].judge.empty()) tournaments.emplace(i, Tournament(specs[i]));
  return tournaments;
}

TournamentRatings Tournament::rate() const {
  TournamentRatings out;
  if (elo_) {
    out.elo = qlora::rate(loaded_.matches, *elo_);
    out.elo->note = loaded_.note;
  } else {
    out.fitted = compute_strengths(loaded_.matches, *fitted_);
    out.fitted->note = loaded_.note;
  }
  return out;
}

TournamentRow Tournament::row(const TournamentRatings& ratings) const {
  const RatingReport& report = ratings.report();
  TournamentRow row = row_;
  row.matches = report.matches;
  for (const Rating& r : report.ratings)
    row.ratings.push_back({r.system, r.rating, r.order_sd, r.ci_lo, r.ci_hi, report.ci_method, r.games,
                           r.wins, r.losses, r.ties});
  return row;
}

}  // namespace qlora
