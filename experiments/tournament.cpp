#include "experiments/tournament.h"

#include <nlohmann/json.hpp>

#include "eval/ratings/presets.h"
#include "experiments/stored_votes.h"
#include "results/table.h"

namespace qlora {
namespace {

Json optional_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}
Value optional_value(const std::optional<double>& value) {
  return value ? Value(*value) : Value();
}

}  // namespace

Tournament::Tournament(const TournamentSpec& spec) : spec_(spec) {
  options_.orders = spec.orders;
  options_.bootstrap = spec.bootstrap;
  options_.seed = static_cast<uint64_t>(spec.seed);
  std::vector<std::string> restrict_to = spec.systems;
  if (!spec.preset.empty()) {
    const Preset& known = preset(spec.preset);
    options_.k = known.k;
    if (restrict_to.empty()) restrict_to.assign(known.systems.begin(), known.systems.end());
  }
  if (spec.k > 0) options_.k = spec.k;
  Json params = {{"k", options_.k},
                 {"orders", spec.orders},
                 {"bootstrap", spec.bootstrap},
                 {"seed", spec.seed},
                 {"votes", spec.votes}};
  if (!spec.preset.empty()) params["preset"] = spec.preset;
  if (!restrict_to.empty()) params["systems"] = restrict_to;
  std::string identity = "elo " + spec.name + "\n" + canonical(params);
  row_.name = spec.name;
  if (!spec.files.empty()) {
    const std::vector<JudgmentFile> files = load_judgments(spec.files);
    matches_ = gather_matches(files, vote_rule_from(spec.votes), restrict_to);
    for (const JudgmentFile& file : files) {
      identity += "\n" + hex(file.content);
      if (!file.votes.empty()) identity += " " + file.votes[0].first + " " + file.votes[0].second;
      row_.files.push_back(vote_file(file));
    }
    row_.invalid = matches_.invalid_rows;
  } else {
    QLORA_CHECK(spec.bootstrap == 0, usage,
                "preset {}: counts have no prompts, so there is no bootstrap; give the files", spec.preset);
    QLORA_CHECK(
        spec.systems.empty() && spec.votes == "each", usage,
        "preset {}: its counts are rated as published, for all systems; to choose systems or how votes "
        "count, give the files",
        spec.preset);
    for (const PairCount& count : preset(spec.preset).counts) row_.invalid += count.invalid;
  }
  row_.params_json = canonical(params);
  row_.key = sha256(identity);
}

EloReport Tournament::rate() {
  if (spec_.files.empty()) return compute_preset(preset(spec_.preset), options_, spec_.k > 0);
  return qlora::rate(matches_, options_);
}

TournamentRow Tournament::row(const EloReport& report) const {
  TournamentRow row = row_;
  row.matches = report.matches;
  for (const Rating& r : report.ratings)
    row.ratings.push_back({r.system, r.rating, r.order_sd, r.ci_lo, r.ci_hi, report.ci_method, r.games,
                           r.wins, r.losses, r.ties});
  return row;
}

std::string print_ratings(const EloReport& report) {
  Table table;
  table.columns = {"rank",  "system", "rating", "order_sd", "ci_lo",
                   "ci_hi", "games",  "wins",   "losses",   "ties"};
  int64_t rank = 0;
  for (const Rating& r : report.ratings)
    table.rows.push_back({++rank, r.system, r.rating, r.order_sd, optional_value(r.ci_lo),
                          optional_value(r.ci_hi), r.games, r.wins, r.losses, r.ties});
  TextStyle style;
  style.digits = 6;
  std::string out = render_text(table, style);
  out +=
      fmt::format("{} matches, {} orders, K = {}", report.matches, report.options.orders, report.options.k);
  if (!report.ci_method.empty()) out += "; interval: " + report.ci_method;
  out += "\n";
  if (!report.note.empty()) out += report.note + "\n";
  return out;
}

std::string ratings_json(const EloReport& report, const TournamentSpec& spec) {
  Json list = Json::array();
  int64_t rank = 0;
  for (const Rating& r : report.ratings)
    list.push_back({{"rank", ++rank},
                    {"system", r.system},
                    {"rating", r.rating},
                    {"order_sd", r.order_sd},
                    {"mc_error", r.mc_error},
                    {"ci_lo", optional_json(r.ci_lo)},
                    {"ci_hi", optional_json(r.ci_hi)},
                    {"games", r.games},
                    {"wins", r.wins},
                    {"losses", r.losses},
                    {"ties", r.ties},
                    {"invalid", r.invalid}});
  Json json = {{"ratings", list},
               {"matches", report.matches},
               {"prompts", report.prompts},
               {"k", report.options.k},
               {"orders", report.options.orders},
               {"bootstrap", report.options.bootstrap},
               {"seed", report.options.seed},
               {"ci_method", report.ci_method.empty() ? Json(nullptr) : Json(report.ci_method)},
               {"note", report.note}};
  if (!spec.preset.empty()) json["preset"] = spec.preset;
  return json.dump(1);
}

}  // namespace qlora
